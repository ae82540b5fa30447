"""Evaluations read rows and write prompts as the runs did that they measure."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from prefero.data.chat import Writing
from prefero.data.formats import load_examples
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
from prefero.evaluate.functions import ByFunction
from prefero.evaluate.judges import RewardModel, answered
from prefero.evaluate.policies import Prompt, Sampling, evaluate, read_prompts
from prefero.evaluate.reading import RunReading, reading_of_rows, readings_of_models
from prefero.models.loading import kind_of
from tests.training.tiny import saved_model, tiny_model, tiny_tokenizer

TEMPLATE = "{% for message in messages %}c {{ message['content'] }} d {% endfor %}"


WITH_ALL = (
    "{% for tool in tools or [] %}{{ tool['name'] }} {% endfor %}{% if think %}e {% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}c {{ message['content'] }} d "
    "{% else %}f {{ message['content'] }} g {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}f {% endif %}"
)
"""A template that writes tools (by their names) and has an option."""

ASKED = {"role": "user", "content": "a"}
BEGUN = {"role": "assistant", "content": "b"}


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
    other = run(tmp_path / "other")
    _, notes = reading_of_rows(str(rows), [other, folder, other], split="test")
    assert notes == [f"{folder} read rows otherwise than {other} in training, as which they are read for all"]
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
        kind_of("auto", model := tiny_model(), tokenizer), model, ["a"], "models", readings[first].writing
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
        "no length-controlled win rate of model: it takes 10 prompts, and there are 2",
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


def rows_with_all(*, alone: bool = False) -> list[dict[str, Any]]:
    """Rows of one question that differ in what a model reads besides it."""
    more = [{}, {"tools": [{"name": "h"}]}, {"chat_template_kwargs": {"think": True}}]
    sides = {} if alone else {"chosen": "i", "rejected": "j"}
    return [{"prompt": [ASKED], **sides, **one} for one in more]


def test_prompts_differ_by_all_that_a_model_reads() -> None:
    for alone in (True, False):
        prompts = read_prompts(rows_with_all(alone=alone), 9)
        assert [prompt.text for prompt in prompts] == [(ASKED,)] * 3
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = WITH_ALL
        asked = [prompt.asked for prompt in prompts]
        kind = kind_of("auto", model := tiny_model(), tokenizer)
        drawn = Sampling(max_new_tokens=2).draw(kind, model, asked, "models")
        contexts = [tokenizer.decode(one.context) for one in drawn]
        assert contexts == ["c a d f", "h c a d f", "e c a d f"]


def test_models_are_given_the_context_of_training(tmp_path: Path) -> None:
    """Functions judge the prompt itself, and judgements hold it."""
    folder = saved_model(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = WITH_ALL
    tokenizer.save_pretrained(folder)
    rows = [*rows_with_all(), {"prompt": [ASKED, BEGUN], "chosen": " i", "rejected": " j"}]
    trained = tokenize(load_examples(rows), tokenizer, roles=("chosen", "rejected"))
    prompts = read_prompts(rows, 9)
    kind = kind_of("auto", model := tiny_model(), tokenizer)
    drawn = Sampling(max_new_tokens=2).draw(kind, model, [prompt.asked for prompt in prompts], "models")
    for one, tokens in zip(drawn, trained, strict=True):
        assert one.context.tolist() == tokens.cells[0].context.tolist()
    assert tokenizer.decode(drawn[-1].context) == "c a d f b"

    seen = []

    def judge(prompt: Any, response: str) -> float:
        seen.append(prompt)
        return 0.0

    result = evaluate({"model": folder}, prompts, ByFunction(judge), sampling=Sampling(max_new_tokens=2))
    assert [one.prompt for one in result.judgements] == [prompt.text for prompt in prompts]
    assert seen == [prompt.text for prompt in prompts] * 2


def test_judges_read_the_rows_that_models_answered() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = WITH_ALL
    begun = {"prompt": [ASKED, BEGUN], "chosen": " i", "rejected": " j"}
    turns = begun | {"chosen": [{"role": "assistant", "content": "i"}]}
    turns["rejected"] = [{"role": "assistant", "content": "j"}]
    examples = [prompt.asked for prompt in read_prompts([*rows_with_all(), begun], 9)]
    examples += [prompt.asked for prompt in read_prompts([turns], 9)]
    judge = RewardModel(None, tokenizer)
    read = [tokenizer.decode(judge._ids(example, " k")).split() for example in examples]
    assert [" ".join(words) for words in read] == [
        "c a d f k g",
        "h c a d f k g",
        "e c a d f k g",
        "c a d f b k g",
        "c a d f b g f k g",
    ]
    learned = tokenize([answered(example, " k") for example in examples], tokenizer, roles=())
    texts = [tokenizer.decode([*cell.context, *cell.response]) for (cell,) in (one.cells for one in learned)]
    assert [text.split()[: len(words) - 1] for text, words in zip(texts, read, strict=True)] == [
        words[:-1] for words in read
    ]
