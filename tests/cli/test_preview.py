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


def test_a_row_is_counted_in_the_file(prefero: Command, tmp_path: Path) -> None:
    """Blank lines and rows that are left out count, and a row that is joined to the one before is its."""
    file = tmp_path / "rows.jsonl"
    half = json.dumps({**ROWS[0], "good": "half \ud83d"})
    file.write_text(f"{json.dumps(ROWS[0])}\n\n{half}\n{json.dumps(ROWS[1])}\n", encoding="utf-8")
    preview = shown(prefero, file, *COLUMNS, "--skip-bad-rows", "--row", "2", "--rows", "1")
    assert [row["row"] for row in preview["rows"]] == [4]
    rated = [
        {"prompt": f"p{i // 2}", "response": f"r{i}", "helpfulness": i % 2, "correctness": i % 2}
        for i in range(6)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rated), encoding="utf-8")
    for row, prompt in ((2, "p0"), (3, "p1"), (6, "p2")):
        (found,) = shown(prefero, file, "--row", row, "--rows", "1")["rows"]
        assert found["prompt"] == prompt


def test_one_row_of_a_method_that_looks_at_the_next(prefero: Command, ingredients: Path) -> None:
    """KTO sets a prompt beside the response to another, and reads the sides of a pair by their label."""
    for model in ((), ("--model", ingredients / "model")):
        (row,) = shown(prefero, ingredients / "pairs.jsonl", "--method", "kto", "--rows", "1", *model)["rows"]
        assert [response["role"] for response in row["responses"]] == ["desirable", "undesirable"]


def test_where_the_template_comes_from_is_said(prefero: Command, rows: Path, ingredients: Path) -> None:
    template = rows.with_name("template.jinja")
    template.write_text("{% for message in messages %}[{{ message['content'] }}]{% endfor %}")
    model = ("--model", ingredients / "model")
    for given, told in (
        ((), "none (the tokenizer has no chat template)"),
        (("--template", "None"), "none (turned off)"),
        (("--template", template), f"{template} (a file)"),
    ):
        assert shown(prefero, rows, *COLUMNS, *model, *given)["template"] == told


def test_a_data_set_of_the_hub_is_streamed(
    prefero: Command, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    folder = tmp_path / "hub"
    folder.mkdir()
    datasets.Dataset.from_list(ROWS * 40).to_parquet(folder / "part.parquet")
    load, asked = datasets.load_dataset, []

    def from_folder(name: str, configuration: str | None, **options: Any) -> Any:
        asked.append((name, configuration, options))
        return load("parquet", data_files=str(folder / "part.parquet"), **options)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)
    (row,) = shown(prefero, "owner/name:en", *COLUMNS, "--row", "42", "--rows", "1")["rows"]
    assert (row["row"], row["prompt"], row["unread"]) == (42, "Name a river.", [])
    assert asked == [("owner/name", "en", {"split": "train", "streaming": True})]

    def offline(name: str, configuration: str | None, **options: Any) -> Any:
        if options["streaming"]:
            raise ConnectionError("no connection")
        return from_folder(name, configuration, **options)

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert len(shown(prefero, "owner/name", *COLUMNS, "--rows", "3")["rows"]) == 3


def test_every_prompt_of_a_row_is_shown(prefero: Command, tmp_path: Path, ingredients: Path) -> None:
    """That of a side with a history of its own, and those of views."""
    file = tmp_path / "rows.jsonl"
    text = "\n\nHuman: a b\n\nAssistant: {}\n\nHuman: a\n\nAssistant: {}"
    sides = {"chosen": text.format("u v", "c"), "rejected": text.format("w w", "d")}
    file.write_text(json.dumps(sides), encoding="utf-8")
    for model in ((), ("--model", ingredients / "model")):
        (row,) = shown(prefero, file, *model)["rows"]
        chosen, rejected = row["responses"]
        assert "u v" in row["prompt"] and (chosen["prompt"], chosen["prompt_ids"]) == (None, None)
        assert "w w" in rejected["prompt"] and "u v" not in rejected["prompt"]
        assert bool(rejected["prompt_ids"]) == bool(model) == bool(row["prompt_ids"])
        told = prefero("preview", file, *model).stdout
        assert "prompt of rejected" in told and "w w" in told
    other = {"prompt": "a b", "chosen": " c", "rejected": " d", "prompt_corrupted": "u v"}
    file.write_text("".join(json.dumps(other) + "\n" for _ in range(2)), encoding="utf-8")
    for model in ((), ("--model", ingredients / "model")):
        row = shown(prefero, file, "--method", "mdpo", *model)["rows"][0]
        assert row["prompts"] == {"prompt_corrupted": "u v"}
        assert "prompt_corrupted  u v" in prefero("preview", file, "--method", "mdpo", *model).stdout
