"""``prefero discover`` as a process: killed, resumed, and refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefero_lab.discovery import BanditFitness, Mutation, discover

BANDIT = ["--world", "bandit", "--pairs", "32", "--prompts", "8", "--seed", "5"]
COMMAND = [sys.executable, "-m", "prefero", "discover"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "TERM": "dumb"}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )


def test_a_killed_process_goes_on_to_the_same_archive(tmp_path: Path) -> None:
    output = tmp_path / "search"
    file = output / "archive.jsonl"
    process = subprocess.Popen(
        [*COMMAND, "-o", str(output), "--rounds", "5000", *BANDIT],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while not (file.is_file() and file.read_bytes().count(b"\n") >= 6):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = file.read_bytes().count(b"\n")

    refused = run("-o", output, "--rounds", done, *BANDIT)
    assert refused.returncode == 2
    assert "continue it with --resume" in refused.stderr
    resumed = run("-o", output, "--rounds", done, "--resume", "--json", *BANDIT)
    assert resumed.returncode == 0, resumed.stderr
    outcome = json.loads(resumed.stdout)
    assert outcome["attempts"] == done + 4
    assert [one["fitness"] for one in outcome["best"]] == sorted(
        (one["fitness"] for one in outcome["best"]), reverse=True
    )
    assert outcome["confirmed"]
    assert "softplus" in resumed.stderr, "progress goes to stderr"

    fitness = BanditFitness(pairs=32, prompts=8, seed=5)
    whole = discover(tmp_path / "whole", Mutation(), fitness, rounds=done, seed=5)
    assert file.read_bytes() == whole.file.read_bytes()


def test_the_table_says_what_was_found_and_half_an_endpoint_is_refused(tmp_path: Path) -> None:
    shown = run("-o", tmp_path / "search", "--rounds", "1", *BANDIT)
    assert shown.returncode == 0, shown.stderr
    for word in ("gold reward gained", "on fresh data", "softplus(-z)", "5 attempts"):
        assert word in shown.stdout
    half = run("-o", tmp_path / "other", "--endpoint", "http://localhost:1/v1")
    assert half.returncode == 2
    assert "--endpoint and --model together" in half.stderr
    assert not (tmp_path / "other").exists()
