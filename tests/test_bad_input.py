"""Bad input ends in one line that names the place, or is read in full; never in a traceback or in silence."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from prefero.cli.main import run
from prefero.cli.recipe import load_yaml
from prefero.errors import PreferoError
from prefero.models.loading import ModelSource
from prefero.objectives import from_config
from prefero.training.trainer import PreferenceTrainer
from tests.bad_inputs import (
    BadInput,
    bad_adapters,
    bad_models,
    bad_templates,
    bad_weights,
    method_arguments,
    of_settings_alone,
    of_the_command_line,
)
from tests.training.tiny import pairs, saved_model

COUNT, SEED = 120, int(os.environ.get("BAD_INPUT_SEED", "5"))


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
        (folder / name).parent.mkdir(exist_ok=True)
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
    if bad.places and not any(place in line for line in told for place in bad.places):
        return f"no line has one of {bad.places}: {told}"
    return ""


def failures(
    inputs: list[BadInput],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    wrong = [(bad, wrong_with(bad, folder, monkeypatch, capsys)) for bad in inputs]
    return [f"{bad.name} ({' '.join(bad.arguments)!a:.150}): {reason}" for bad, reason in wrong if reason]


def refused_or_loaded(files: dict[str, bytes], folder: Path, word: str = "") -> str:
    """How a folder of a model is treated otherwise than it should be: loaded with numbers alone, or refused
    with its place, and the ``word`` if there is one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        source = ModelSource(str(folder))
        loaded = source.load()
        source.processor()
    except PreferoError as error:
        told = str(error)
        return "" if str(folder) in told and word in told else f"no place, or no {word!r}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if word:
        return f"loaded, and not refused for {word!r}"
    return "" if all(weight.isfinite().all() for weight in loaded.parameters()) else "weights of no numbers"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("model")
    saved_model(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_sample(empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(SEED)
    sample = draw.sample(of_the_command_line(COUNT, SEED), 18) + draw.sample(of_settings_alone(), 18)
    assert failures(sample, empty, monkeypatch, capsys) == []


def test_a_sample_of_models(empty: Path, model: dict[str, bytes]) -> None:
    for name, files in bad_models(model, 4, SEED):
        assert refused_or_loaded(files, empty / "model") == "", name


def test_a_model_that_the_objective_does_not_read_is_said(
    tmp_path: Path, model: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model").mkdir()
    for name, content in model.items():
        (tmp_path / "model" / name).write_bytes(content)
    source = str(tmp_path / "model")
    given = {"guide": source, "previous": source}
    PreferenceTrainer(source, pairs(4), objective="dpo", models=given, output_dir=str(tmp_path / "run"))
    told = "not used: models.guide, models.previous; the models that the objective reads beside the policy"
    assert f"{told}: reference" in caplog.text


@pytest.mark.slow
def test_all(empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = of_the_command_line(COUNT, SEED)
    assert len(inputs) >= 300
    assert failures(inputs, empty, monkeypatch, capsys) == []


@pytest.mark.slow
def test_all_settings(
    empty: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failures(of_settings_alone(), empty, monkeypatch, capsys) == []


@pytest.mark.slow
def test_all_arguments_of_methods() -> None:
    wrong = []
    for method, name, text in method_arguments():
        try:
            from_config({"method": method, name: load_yaml(text)})
        except (PreferoError, yaml.YAMLError):
            pass
        except Exception as error:
            wrong.append(f"{method}, {name}={text:.20}: {type(error).__name__}: {error}")
    assert wrong == []


@pytest.mark.slow
def test_all_models(empty: Path, model: dict[str, bytes]) -> None:
    wrong = [
        (name, reason)
        for name, files in bad_models(model, 300, SEED)
        if (reason := refused_or_loaded(files, empty / "model"))
    ]
    assert wrong == []


@pytest.mark.slow
def test_weights_that_are_not_what_their_header_says(empty: Path, model: dict[str, bytes]) -> None:
    wrong = [
        (name, reason)
        for name, content, word in bad_weights(model["model.safetensors"])
        if (reason := refused_or_loaded({**model, "model.safetensors": content}, empty / "model", word))
    ]
    assert wrong == []


HARMLESS = {"bias = 'none of these'", "auto_mapping = {'parent_library': 'os'}"}
"""Damages of adapters that change nothing of what is loaded."""


@pytest.mark.slow
def test_adapters_that_do_not_fit(empty: Path, model: dict[str, bytes]) -> None:
    (empty / "base").mkdir()
    for name, content in model.items():
        (empty / "base" / name).write_bytes(content)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(empty / "base"), config)
    adapted.save_pretrained(empty / "adapters")
    files = {file.name: file.read_bytes() for file in (empty / "adapters").iterdir()}
    assert refused_or_loaded(files, empty / "model") == ""
    with pytest.raises(AssertionError):
        assert refused_or_loaded(files, empty / "model", "a refusal") == ""
    wrong = [
        (name, reason)
        for name, damaged, word in bad_adapters(files)
        if (reason := refused_or_loaded(damaged, empty / "model", "" if name in HARMLESS else word))
    ]
    assert wrong == []


@pytest.mark.slow
def test_chat_templates_that_write_nothing(
    model: dict[str, bytes],
    empty: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert failures(list(bad_templates(model)), empty, monkeypatch, capsys) == []
