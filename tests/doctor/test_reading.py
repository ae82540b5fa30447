"""How rows become tokens: unread columns, equal sides, what the chat template does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import prefero
from tests.data.conftest import CHATML, MakeTokenizer, make_tokenizer as make_tokenizer, trained as trained
from tests.training.tiny import tiny_model


def rows(**more: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {n}?", "chosen": f"answer {n}", "rejected": f"reply {n}", **more}
        for n in range(12)
    ]


def test_a_column_that_is_not_read_is_named() -> None:
    found = prefero.inspect([*rows(), {**rows()[0], "background": "Some text."}])["unread"]
    assert found.level == "look" and "background (1)" in found.message
    assert (found.measures[0].count, found.measures[0].of) == (1, 13)


def test_ids_are_nothing_to_look_at() -> None:
    found = prefero.inspect(rows(id="x", source="y"))["unread"]
    assert found.level == "fine" and "id (12), source (12)" in found.message


@pytest.fixture
def chat(make_tokenizer: MakeTokenizer, tmp_path: Path) -> Any:
    return make_tokenizer(CHATML, eos_token="<|im_end|>")


def test_sides_that_the_template_makes_equal_are_found(chat: Any) -> None:
    said = {"role": "assistant", "content": "7"}
    thought = [{**said, "reasoning_content": text} for text in ("3 and 4", "a guess")]
    same = {"prompt": [{"role": "user", "content": "3 + 4?"}], "chosen": thought[:1], "rejected": thought[1:]}
    other = {**same, "chosen": [{**said, "content": "8"}]}
    model = tiny_model()
    model.resize_token_embeddings(len(chat))
    inspection = prefero.inspect([same, *[other] * 11], model=model, processor=chat, max_length=60, rows=4)
    found = inspection["same_tokens"]
    assert (found.measures[0].count, found.measures[0].of) == (1, 12)
    assert found.level != "fine"
    assert "does not write 'reasoning_content'" in inspection["template"].message


def test_labels_of_one_kind_are_to_act_on() -> None:
    row = {"prompt": "p", "completion": "a", "label": True}
    found = prefero.inspect([row, {**row, "prompt": "q"}])["one_label"]
    assert found.level == "act" and found.message.startswith("2 of 2 responses are labelled good")
    both = prefero.inspect([row, {**row, "prompt": "q", "label": False}])["one_label"]
    assert both.level == "fine" and both.measures[0].value == 0.5
