"""Evaluations read rows and write prompts as the runs did that they measure."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from prefero.data.render import Writing
from prefero.errors import PreferoError
from prefero.evaluate.judges import ByFunction, RewardModel
from prefero.evaluate.policies import Prompt, Sampling, evaluate, read_prompts
from prefero.evaluate.reading import RunReading, reading_of_rows, readings_of_models
from tests.training.tiny import saved_model, tiny_model, tiny_tokenizer

TEMPLATE = "{% for message in messages %}c {{ message['content'] }} d {% endfor %}"


def run(folder: Path, **data: Any) -> str:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"config": {"data": data}, "date": "2026-01-02"}))
    return str(folder)


def test_a_run_keeps_how_it_read(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", columns={"prompt": "q"}, template="none", max_length=64, format="pairs")
    reading = RunReading.of(folder)
    assert reading is not None
    assert reading.writing == Writing("none", {}, dt.date(2026, 1, 2))
    assert (reading.columns, reading.format, reading.max_length) == ({"prompt": "q"}, "pairs", 64)
    assert RunReading.of(tmp_path) is None
    assert RunReading.of(tmp_path / "run" / "model") == reading == RunReading.of(f"{folder}/checkpoint-2")


def test_columns_of_the_run_are_the_default(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", columns={"prompt": "q", "chosen": "good"})
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"q": "a b"}) + "\n")
    reading, notes = reading_of_rows(str(rows), ["hub/name", folder], split="test")
    assert reading.columns == {"prompt": "q"}
    assert notes == [
        f"columns of {folder} that {rows} does not have: chosen=good",
        f"rows are read as those of {folder}: columns prompt=q",
    ]
    assert read_prompts(str(rows), 5, columns=reading.columns) == [Prompt("a b")]
    given, _ = reading_of_rows(str(rows), [folder], split="test", columns={}, format="pairs")
    assert (given.columns, given.format) == ({}, "pairs")


def test_prompts_are_written_as_in_training(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATE)
    first = run(tmp_path / "first", template=str(template))
    second = run(tmp_path / "second", max_length=32)
    readings, notes = readings_of_models([first, second, "start"])
    assert [readings[name].writing.template for name in readings] == [str(template), "auto", str(template)]
    assert notes == [
        f"{first}: prompts are written as it was trained: template {template}",
        f"{second}: prompts are written as it was trained: max_length 32",
        f"start: prompts are written as for {first}: template {template}",
    ]
    given, notes = readings_of_models([first, "start"], template="none", max_length=16)
    assert {(one.writing.template, one.max_length) for one in given.values()} == {("none", 16)}
    assert all(note.endswith("; but template none, max_length 16, as given") for note in notes)

    tokenizer = tiny_tokenizer()
    (sample,) = Sampling(max_new_tokens=2).draw(
        tiny_model(), tokenizer, ["a"], "models", readings[first].writing
    )
    assert tokenizer.decode(sample.context).split() == ["c", "a", "d"]


def test_prompts_without_room_are_left_out_and_counted(tmp_path: Path) -> None:
    saved_model(tmp_path / "model")
    prompts = [Prompt("a b c", "a"), Prompt("a b", "a"), Prompt("a " * 20, "b")]

    def length(prompt: Any, response: str) -> float:
        return float(len(response))

    sampling = Sampling(max_new_tokens=4)
    model = {"model": str(tmp_path / "model")}
    result = evaluate(model, prompts, ByFunction(length), sampling=sampling, max_length=12)
    assert len(result.judgements) == 2
    assert result.notes == (
        "left out: 1 of 3 prompts leave no room for a response of 4 tokens within the models' context "
        "(--max-length)",
    )
    with pytest.raises(PreferoError, match="3 of 3 prompts leave no room"):
        evaluate(model, prompts, ByFunction(length), sampling=sampling, max_length=4)


def test_a_reward_model_reads_text_through_its_template() -> None:
    tokenizer = tiny_tokenizer()
    plain = RewardModel(None, tokenizer)._ids("a ", "b")
    assert tokenizer.decode(plain).split() == ["a", "b"]
    tokenizer.chat_template = TEMPLATE
    written = RewardModel(None, tokenizer)._ids("a", "b")
    assert tokenizer.decode(written).split() == ["c", "a", "d", "c", "b", "d"]
