"""How long ``prefero inspect`` takes, and how much memory, on pairs that are made up.

    python -m benchmarks inspect --rows 100000

Prompts have 60 words, responses 150 on average, drawn with the frequencies of a natural language. Five rows
of a hundred repeat another, nearly or to the letter, as real collections do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import MIB, machine
from benchmarks.tables import machine_note, publish, table

PROGRAM = """
import json, resource, sys, time
from prefero.doctor.inspection import inspect
from prefero.doctor.page import write

times, last = [], ["", time.perf_counter(), time.process_time()]
def progress(name):
    now, cpu = time.perf_counter(), time.process_time()
    times.append((last[0], now - last[1], cpu - last[2]))
    last[:] = [name, now, cpu]
found = inspect(sys.argv[1], eval_data=0.02, max_length=1024, progress=progress)
progress("")
write(found, sys.argv[1] + ".html")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": found.seconds, "cpu": time.process_time(), "peak": peak, "parts": times[1:],
                  "found": {one.key: one.measures[0].value for one in found.findings}}))
"""


def made_up(rows: int, file: Path, seed: int = 0) -> None:
    """Pairs whose chosen response is the longer one at 60 %, and made of commoner words."""
    generator = np.random.default_rng(seed)
    vocabulary = np.asarray([f"w{number:x}" for number in range(30_000)])
    common = 1 / np.arange(1, len(vocabulary) + 1)
    weights = np.cumsum(common / common.sum())

    def text(words: float, most: float = 1.0) -> str:
        count = max(1, int(generator.gamma(4.0, words / 4)))
        return " ".join(vocabulary[np.searchsorted(weights, most * generator.random(count) * weights[-1])])

    earlier: list[dict[str, Any]] = []
    with file.open("w", encoding="utf-8") as lines:
        for number in range(rows):
            if earlier and number % 40 == 0:
                row = earlier[generator.integers(len(earlier))]
            elif earlier and number % 40 == 20:
                old = earlier[generator.integers(len(earlier))]
                row = {**old, "chosen": f"{old['chosen']} indeed"}
            else:
                longer = generator.random() < 0.6
                sides = sorted((text(150, 0.98), text(150)), key=len, reverse=longer)
                row = {"prompt": text(60), "chosen": sides[0], "rejected": sides[1]}
            if number % 50 == 1:
                earlier.append(row)
            lines.write(json.dumps(row) + "\n")


def measure(rows: int, *, seed: int, save: bool) -> None:
    """Make the rows, look at them in a process of its own, and print what it took."""
    with tempfile.TemporaryDirectory(prefix="prefero-benchmark-") as folder:
        file = Path(folder) / "pairs.jsonl"
        made_up(rows, file, seed)
        size = file.stat().st_size
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(file)], capture_output=True, text=True, check=True
        )
        wall = time.perf_counter() - began
    result = json.loads(done.stdout)
    lines = [[name, f"{seconds:.1f}", f"{cpu:.1f}"] for name, seconds, cpu in result["parts"]]
    lines.append(["all, with start and page", f"{wall:.1f}", f"{result['cpu']:.1f}"])
    here = machine()
    text = "\n\n".join(
        [
            "## Inspecting data",
            f"{rows:,} rows, {size / MIB:,.0f} MiB of JSON; peak memory {result['peak'] / MIB:,.0f} MiB.",
            table(["what is looked at", "seconds", "of a processor"], lines),
            machine_note(here),
        ]
    )
    publish(
        "inspection", text, {"rows": rows, "bytes": size, "wall": wall, "machine": here, **result}, save=save
    )
