"""``prefero preview``: rows as they are trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command

ROWS = [
    {"context": "Name a sea.", "good": "The North Sea.", "bad": "None.", "colour": "blue"},
    {"context": "Name a river.", "good": "The Rhine.", "bad": "None.", "colour": None},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


COLUMNS = ("--columns", "prompt=context,chosen=good,rejected=bad")


def shown(prefero: Command, *arguments: object) -> dict[str, Any]:
    result = prefero("preview", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_rows_as_they_are_read(prefero: Command, rows: Path) -> None:
    preview = shown(prefero, rows, *COLUMNS)
    first, second = preview["rows"]
    assert (first["row"], first["prompt"]) == (1, "Name a sea.")
    assert [(one["role"], one["text"]) for one in first["responses"]] == [
        ("chosen", "The North Sea."),
        ("rejected", "None."),
    ]
    assert first["unread"] == ["colour"]
    assert second["unread"] == []  # a null says nothing


def test_rows_as_they_are_trained(prefero: Command, rows: Path, ingredients: Path) -> None:
    from transformers import AutoTokenizer

    preview = shown(prefero, rows, *COLUMNS, "--model", ingredients / "model", "--rows", "1")
    (row,) = preview["rows"]
    tokenizer = AutoTokenizer.from_pretrained(ingredients / "model")
    for response, text in zip(row["responses"], ("The North Sea.", "None."), strict=True):
        ids = [*tokenizer(f"Name a sea.{text}")["input_ids"], tokenizer.eos_token_id]
        assert row["prompt_ids"] + response["ids"] == ids
        assert len(response["scored"]) == len(response["ids"])
    assert preview["max_length"] is not None


def test_a_later_row_can_be_asked_for(prefero: Command, rows: Path) -> None:
    (row,) = shown(prefero, rows, *COLUMNS, "--row", "2")["rows"]
    assert row["row"] == 2 and row["prompt"] == "Name a river."
    result = prefero("preview", rows, *COLUMNS, "--row", "9")
    assert result.returncode == 2 and "there is no row 9 or later, only 2 rows" in result.stderr


def test_rows_that_cannot_be_read_are_listed(prefero: Command, rows: Path) -> None:
    half = json.dumps({**ROWS[0], "good": "half \ud83d"})
    rows.write_text(f"{half}\n{json.dumps(ROWS[1])}\n", encoding="utf-8")
    preview = shown(prefero, rows, *COLUMNS, "--skip-bad-rows")
    (problem,) = preview["skipped"]
    assert "row 1: a text holds half a character" in problem
    assert [row["row"] for row in preview["rows"]] == [2]
    for command in (("preview", rows), ("convert", rows, "-o", rows.with_name("out.jsonl"))):
        result = prefero(*command, *COLUMNS)
        assert result.returncode == 2 and "half a character" in result.stderr


def test_a_column_that_is_not_there_is_refused(prefero: Command, rows: Path) -> None:
    result = prefero("preview", rows, "--columns", "prompt=contxt")
    assert result.returncode == 2
    assert "'contxt', and no row has such a column; did you mean 'context'" in result.stderr


def test_people_see_what_is_scored(prefero: Command, rows: Path, ingredients: Path) -> None:
    result = prefero("preview", rows, *COLUMNS, "--model", ingredients / "model")
    assert result.returncode == 0, result.stderr
    assert "tokens scored" in result.stdout
    assert "not read: colour" in result.stdout
