from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.tiny import pairs, saved_model

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def ingredients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, its tokenizer, and pairs."""
    folder = tmp_path_factory.mktemp("ingredients")
    saved_model(folder / "model")
    (folder / "pairs.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in pairs(24)), encoding="utf-8"
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "PREFERO_CACHE": str(tmp_path / "references"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "TERM": "dumb",
    }


@pytest.fixture
def process(tmp_path: Path, environment: dict[str, str]) -> Command:
    """Runs the command line in a process of its own, in an empty folder."""

    def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "prefero", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=240,
            cwd=tmp_path,
            env=environment | more,
            check=False,
        )

    return run


@pytest.fixture
def prefero(
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """Runs the command line in this process, which spares the seconds that loading torch takes."""
    from prefero.cli.main import run

    def call(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["prefero", *map(str, arguments)])
            for name, value in (environment | more).items():
                patch.setenv(name, value)
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                run()
            out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, out, err)

    return call


@pytest.fixture
def quick() -> list[str]:
    """Settings that keep a run to seconds."""
    return [
        "training.examples_per_step=6",
        "training.logging_steps=1",
        "training.learning_rate=1e-3",
        "training.use_cpu=true",
    ]
