"""A converted row is read as the same example."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefero.data.convert import row_of
from prefero.data.examples import Example
from prefero.data.formats import load_examples
from prefero.errors import PreferoError

ASKED = [{"role": "user", "content": "Name a sea."}]

ROWS: list[dict[str, Any]] = [
    {
        "prompt": "Name a sea.",
        "chosen": "North Sea.",
        "rejected": "None.",
        "chosen_score": 8,
        "rejected_score": 2,
    },
    {"prompt": ASKED, "chosen": "North Sea.", "rejected": "None.", "weight": 2.0, "gold": "The North Sea."},
    {
        "prompt": ASKED,
        "chosen": [{"role": "assistant", "content": "North Sea."}],
        "rejected": [{"role": "assistant", "content": "None."}],
        "tools": [{"type": "function", "function": {"name": "look"}}],
        "chosen_model": "a",
        "rejected_model": "b",
    },
    {"prompt": "Name a sea.", "chosen": "North Sea.", "rejected": "None.", "prompt_corrupted": "Name a s."},
    {
        "prompt": "Name a sea.",
        "chosen": "North Sea.",
        "rejected": "None.",
        "chosen_spans": [{"start": 0, "end": 5, "weight": 2}],
        "rejected_spans": [{"start": 0, "end": 4, "segment": 1}],
    },
    {"prompt": "Name a sea.", "completion": "North Sea.", "label": True},
    {"prompt": "Name a sea.", "completion": "North Sea.", "score": 0.5},
    {"prompt": "Name a sea.", "responses": ["North Sea.", "None.", "What?"], "scores": [3, 1, 2]},
    {"prompt": "Name a sea.", "responses": ["North Sea.", "None."], "ranks": [0, 1], "win_rates": [0.9, 0.1]},
    {
        "instruction": "Name a sea.",
        "completions": [
            {"response": "North Sea.", "annotations": {"honesty": {"Rating": "5"}}, "model": "a"},
            {"response": "None.", "annotations": {"honesty": {"Rating": "1"}}, "model": "b"},
        ],
    },
    {
        "instruction": "Name a sea.",
        "response1": "None.",
        "response2": "North Sea.",
        "annotator1": 2,
        "annotator2": 0,
    },
]


def plain(example: Example) -> Example:
    return replace(example, origin="", read=(), unread=())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row))
def test_a_converted_row_is_the_same_example(row: dict[str, Any]) -> None:
    (example,) = load_examples([row])
    converted = json.loads(json.dumps(row_of(example)))
    (again,) = load_examples([converted])
    assert plain(again) == plain(example)


def test_images_are_found_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    row = {"images": ["a.png"], "prompt": "Name it.", "chosen": "A sea.", "rejected": "None."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (example,) = load_examples(tmp_path / "rows.jsonl")
    assert row_of(example)["images"] == [str(tmp_path / "a.png")]


def test_what_a_row_cannot_say_is_refused() -> None:
    row = {"prompt": "2+2+2=", "initial_reason_steps": "Step 1: 4.\n", "chosen": "6", "rejected": "7"}
    (example,) = load_examples([row])
    with pytest.raises(PreferoError, match="row 1: its responses have prompts of their own, or are cut"):
        row_of(example)
