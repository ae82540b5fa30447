"""What the digests of a checkpoint cost: writing its files, hashing them, and verifying them at a resume.

python -m benchmarks checkpoints --mebibytes 1536
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.measure import MIB, machine
from benchmarks.tables import machine_note, publish, table
from prefero.training.checkpoints import mark_complete, undamaged

SHARES = {"model.safetensors": 1, "optimizer.safetensors": 2}
"""Files of a checkpoint, and their parts of its size: AdamW keeps two numbers for each weight."""


def measure(mebibytes: int, *, rounds: int, seed: int, save: bool) -> None:
    """Write a checkpoint of that size, and print the seconds of the best round for each gigabyte."""
    generator = torch.Generator().manual_seed(seed)
    best = dict.fromkeys(("write", "hash", "verify"), float("inf"))
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="prefero-benchmark-") as folder:
            checkpoint = Path(folder) / "checkpoint-1"
            checkpoint.mkdir()
            began = time.perf_counter()
            for name, share in SHARES.items():
                count = mebibytes * share * MIB // (4 * sum(SHARES.values()))
                save_file({"weight": torch.randn(count, generator=generator)}, checkpoint / name)
            os.sync()
            written = time.perf_counter()
            mark_complete(checkpoint, 1, {}, {})
            marked = time.perf_counter()
            undamaged(checkpoint, or_earlier=False)
            verified = time.perf_counter()
        seconds = {"write": written - began, "hash": marked - written, "verify": verified - marked}
        best = {name: min(best[name], seconds[name]) for name in best}
    gigabytes = mebibytes * MIB / 1e9
    here = machine()
    lines = [[name, f"{seconds:.2f}", f"{seconds / gigabytes:.2f}"] for name, seconds in best.items()]
    text = "\n\n".join(
        [
            "## Checkpoints",
            f"{len(SHARES)} files of together {gigabytes:.2f} GB; the best of {rounds} rounds.",
            table(["what is done", "seconds", "a gigabyte"], lines),
            machine_note(here),
        ]
    )
    publish("checkpoints", text, {"gigabytes": gigabytes, "machine": here, **best}, save=save)
