"""Bad input ends in one line that names the place, or is read in full; never in a traceback or in silence."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest

from prefero.cli.main import run
from prefero.errors import PreferoError
from prefero.models.loading import ModelSource
from tests.bad_inputs import BadInput, bad_models, of_the_command_line
from tests.training.tiny import saved_model

COUNT, SEED = 120, 5


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def wrong_with(
    bad: BadInput, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """How the command line treats a bad input otherwise than it should; nothing, where it does what it
    should."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name, content in bad.files.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["prefero", *bad.arguments])
    capsys.readouterr()
    try:
        run()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    said = capsys.readouterr()
    told = [line for line in said.err.splitlines() if line.startswith("prefero: ")]
    if code == 0:
        if bad.words:
            return f"no error, expected {bad.words}"
        rows = json.loads(said.out)["rows"]
        if bad.records is not None and len(rows) != bad.records:
            return f"{bad.records} rows were given, and {len(rows)} are shown"
        return ""
    if code != 2 or not told or "Traceback" in said.err:
        return f"exit {code}: {said.err[-300:]}"
    if not any(all(word in line for word in bad.words) for line in told):
        return f"no line has all of {bad.words}: {told}"
    return ""


def failures(
    inputs: list[BadInput],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    wrong = [(bad, wrong_with(bad, folder, monkeypatch, capsys)) for bad in inputs]
    return [f"{bad.name} ({' '.join(bad.arguments)!a:.150}): {reason}" for bad, reason in wrong if reason]


def refused_or_loaded(files: dict[str, bytes], folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        source = ModelSource(str(folder))
        source.load()
        source.processor()
    except PreferoError as error:
        return "" if str(folder) in str(error) else f"the place is missing: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("model")
    saved_model(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_sample(empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sample = random.Random(SEED).sample(of_the_command_line(COUNT, SEED), 18)
    assert failures(sample, empty, monkeypatch, capsys) == []


def test_a_sample_of_models(empty: Path, model: dict[str, bytes]) -> None:
    for name, files in bad_models(model, 4, SEED):
        assert refused_or_loaded(files, empty / "model") == "", name


@pytest.mark.slow
def test_all(empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = of_the_command_line(COUNT, SEED)
    assert len(inputs) >= 300
    assert failures(inputs, empty, monkeypatch, capsys) == []


@pytest.mark.slow
def test_all_models(empty: Path, model: dict[str, bytes]) -> None:
    wrong = [
        (name, reason)
        for name, files in bad_models(model, 150, SEED)
        if (reason := refused_or_loaded(files, empty / "model"))
    ]
    assert wrong == []
