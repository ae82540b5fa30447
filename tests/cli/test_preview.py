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


OTHERS = "This row is much longer than the limit that is set for it in this test, on every side of it"


def test_as_many_rows_are_shown_as_remain(prefero: Command, rows: Path, ingredients: Path) -> None:
    """Of rows of which many are left out; the counts are those of the rows up to the last that is shown."""
    short = {"prompt": "Name a sea.", "chosen": "The North Sea.", "rejected": "None."}
    long = {**short, "chosen": f"None. {OTHERS}"}
    kept = [short if place % 6 == 5 else long for place in range(60)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    model = ("--model", ingredients / "model", "--max-length", "16", "--too-long", "drop")
    preview = shown(prefero, rows, *model, "--rows", "3")
    assert [row["row"] for row in preview["rows"]] == [6, 12, 18]
    assert "examples of more than max_length = 16 tokens left out: 15, first" in preview["notes"][0]
    preview = shown(prefero, rows, *model, "--rows", "3", "--row", "40")
    assert [row["row"] for row in preview["rows"]] == [42, 48, 54]
    assert "left out: 12, first rows.jsonl, row 40" in preview["notes"][0]
    preview = shown(prefero, rows, *model, "--rows", "30")
    assert len(preview["rows"]) == 10 and "left out: 50" in preview["notes"][0]
    rows.write_text(json.dumps(long) + "\n", encoding="utf-8")
    result = prefero("preview", rows, *model)
    assert result.returncode == 2 and "no example is left: examples of more than" in result.stderr


def test_ties_before_the_first_pair_are_passed_over(prefero: Command, rows: Path) -> None:
    tie = {"prompt": "a", "response1": "b", "response2": "c", "annotator1": 0}
    kept = [tie] * 30 + [{**tie, "annotator1": 1}] * 2
    rows.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    preview = shown(prefero, rows, "--rows", "1")
    assert [row["row"] for row in preview["rows"]] == [31] and preview["notes"] == ["ties left out: 30."]


def test_far_rows_are_not_searched(prefero: Command, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefero.cli import preview as command

    monkeypatch.setattr(command, "MOST", 20)
    tie = {"prompt": "a", "response1": "b", "response2": "c", "annotator1": 0}
    kept = [{**tie, "annotator1": 1}] + [tie] * 80
    rows.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    preview = shown(prefero, rows, "--rows", "2")
    assert [row["row"] for row in preview["rows"]] == [1]
    assert preview["notes"] == ["ties left out: 19.", "no more rows are shown: 20 rows have been read"]


def test_other_rows_are_not_counted(prefero: Command, rows: Path, ingredients: Path) -> None:
    """KTO sets a row beside another one, which need not be read for the first one to be shown."""
    kept = [{"prompt": "a", "completion": f"b{OTHERS * place}", "label": not place} for place in range(2)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    model = ("--model", ingredients / "model", "--max-length", "20")
    preview = shown(prefero, rows, *model, "--rows", "1", "--method", "kto")
    assert len(preview["rows"]) == 1 and preview["notes"] == []
    assert "first rows.jsonl, row 2" in shown(prefero, rows, *model, "--method", "kto")["notes"][0]


@pytest.mark.parametrize("option", [("--template", "none"), ("--max-length", "9"), ("--too-long", "drop")])
def test_options_of_tokens_need_a_model(prefero: Command, rows: Path, option: tuple[str, str]) -> None:
    result = prefero("preview", rows, *COLUMNS, *option)
    assert result.returncode == 2
    assert f"{option[0]} needs --model: without a model nothing is done with it" in result.stderr


def test_a_bad_row_says_how_the_command_leaves_it_out(prefero: Command, rows: Path) -> None:
    bad = {"prompt": "a", "chosen": None, "rejected": "c"}
    rows.write_text(json.dumps(bad) + "\n", encoding="utf-8")
    for command in (("preview", rows), ("convert", rows, "-o", "out.jsonl")):
        error = prefero(*command).stderr
        assert error.endswith("leave such rows out and have them listed: --skip-bad-rows.\n")


def test_rows_are_shown_by_the_method_of_their_layout(
    prefero: Command, rows: Path, ingredients: Path
) -> None:
    labelled = [{"prompt": "a", "completion": f"b{place}", "label": place % 2 == 0} for place in range(4)]
    rated = [{"prompt": f"a{place}", "completion": "b", "score": place} for place in range(2)]
    listed = [{"prompt": "a", "responses": ["None.", "The Rhine.", "No."], "scores": [2, 9, 1]}]
    for kept, roles in (
        (labelled, ["desirable"]),
        (rated, [None]),
        (listed, ["chosen", "rejected"]),
        ([{"prompt": "a", "chosen": "The Rhine.", "rejected": "None."}], ["chosen", "rejected"]),
    ):
        rows.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        for model in ((), ("--model", ingredients / "model")):
            first = shown(prefero, rows, *model)["rows"][0]
            assert [response["role"] for response in first["responses"]] == roles
    rows.write_text(json.dumps(labelled[0]) + "\n", encoding="utf-8")
    result = prefero("preview", rows, "--method", "dpo")
    assert result.returncode == 2 and "'kto'" in result.stderr and "trained" not in result.stderr


def test_long_texts_are_shortened_for_people(prefero: Command, rows: Path) -> None:
    text = "x" * 400 + "y" * 600 + "z" * 400
    rows.write_text(json.dumps({"prompt": "a", "chosen": text, "rejected": "c"}) + "\n", encoding="utf-8")
    told = prefero("preview", rows).stdout.replace("\n", "")
    assert "x [… 800 characters …] y" not in told and "y [… 800 characters …] y" not in told
    assert "x [… 800 characters …] z" in told and told.count("x") < 350
    assert text in prefero("preview", rows, "--full").stdout.replace("\n", "")
    assert shown(prefero, rows)["rows"][0]["responses"][0]["text"] == text


def test_columns_are_named_once_where_all_rows_agree(prefero: Command, rows: Path) -> None:
    both = [{**row, "colour": "red"} for row in ROWS]
    rows.write_text("".join(json.dumps(row) + "\n" for row in both), encoding="utf-8")
    told = prefero("preview", rows, *COLUMNS).stdout
    assert told.count("not read: colour") == 1 and told.count("read: prompt, chosen, rejected") == 1
    assert told.index("not read") < told.index("row 1")
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    told = prefero("preview", rows, *COLUMNS).stdout
    assert told.count("not read: colour") == 1 and told.index("row 1") < told.index("not read")


def test_speakers_stand_apart_from_what_they_say(prefero: Command, rows: Path) -> None:
    turns = [("user", "Name a sea.\nAny sea."), ("assistant", "None."), ("user", "Try.")]
    prompt = [{"role": role, "content": text} for role, text in turns]
    rows.write_text(json.dumps({"prompt": prompt, "chosen": "b", "rejected": "c"}) + "\n", encoding="utf-8")
    told = prefero("preview", rows).stdout
    block = "prompt\n  user:\n    Name a sea.\n    Any sea.\n  assistant:\n    None.\n  user:\n    Try.\n"
    assert block in "".join(f"{line.rstrip()}\n" for line in told.splitlines())


def test_a_layout_by_the_name_of_a_method_is_offered(prefero: Command, rows: Path) -> None:
    for given, meant in (
        ("kto", "unpaired"),
        ("DPO", "pairs"),
        ("hh", "transcripts"),
        ("unpared", "unpaired"),
    ):
        result = prefero("preview", rows, "--format", given)
        assert result.returncode == 2 and f"did you mean '{meant}'?" in result.stderr


def test_rows_left_out_are_named(prefero: Command, rows: Path) -> None:
    bad = [{"prompt": "a", "chosen": None, "rejected": "c"}] * 12
    kept = [*bad, {"prompt": "a", "chosen": "b", "rejected": "c"}]
    rows.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    for command in (("preview",), ("convert", "-o", "out.jsonl")):
        told = prefero(command[0], rows, *command[1:], "--skip-bad-rows").stderr
        assert "left out: rows.jsonl, row 1," in told and "left out: rows.jsonl, row 10," in told
        assert "row 11" not in told and "left out: 2 more rows (" in told
        assert "12 rows left out that cannot be read:" in told


def test_converting_says_what_it_does_not_write(prefero: Command, rows: Path, tmp_path: Path) -> None:
    result = prefero("convert", rows, *COLUMNS, "-o", "out.jsonl")
    assert result.returncode == 0 and "not read, so that they are not written: colour" in result.stderr
    assert result.stdout == "2 rows, read as pairs, written to out.jsonl\n"
    again = prefero("convert", rows, *COLUMNS, "-o", "out.jsonl", "--limit", "1")
    assert again.returncode == 2 and "replace it with --overwrite" in again.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    again = prefero("convert", rows, *COLUMNS, "-o", "out.jsonl", "--limit", "1", "--overwrite", "--json")
    told = json.loads(again.stdout)
    assert (told["rows"], told["unread"], told["output"]) == (1, ["colour"], "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_a_row_that_cannot_be_converted_leaves_no_file(prefero: Command, rows: Path, tmp_path: Path) -> None:
    text = "\n\nHuman: a b\n\nAssistant: {}\n\nHuman: a\n\nAssistant: {}"
    sides = {"chosen": text.format("u v", "c"), "rejected": text.format("w w", "d")}
    rows.write_text(json.dumps(sides), encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    assert prefero("convert", rows, "-o", "out.jsonl").returncode == 2
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", [("convert", "rows.jsonl"), ("inspect", "rows.jsonl")])
def test_a_limit_of_no_rows_is_refused(prefero: Command, rows: Path, command: tuple[str, str]) -> None:
    result = prefero(*command, *COLUMNS, "-o", "out.jsonl", "--limit", "0")
    assert result.returncode == 2 and "'--limit': Input should be greater than or equal to 1" in result.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("convert", "rows.jsonl", "-o", "taken.jsonl"), "taken.jsonl is a folder"),
        (("convert", "rows.jsonl", "-o", "rows.jsonl/out.jsonl"), "rows.jsonl is a file, and not a folder"),
        (("inspect", "rows.jsonl", "-o", "taken.jsonl"), "taken.jsonl is a folder"),
        (("inspect", "rows.jsonl", "--without", "empty", "--save", "taken.jsonl"), "taken.jsonl is a folder"),
        (("inspect", "rows.jsonl", "--without", "empty", "--save", "there.jsonl"), "with --overwrite"),
        (("report", "run", "-o", "taken.jsonl"), "taken.jsonl is a folder"),
        (("demo", "-o", "rows.jsonl"), "rows.jsonl is a file: name a folder"),
        (
            ("evaluate", "m", "--judge", "j", "--data", "rows.jsonl", "-o", "rows.jsonl/a"),
            "is a file, and not",
        ),
        (("train", "--data", "rows.jsonl", "--model", "m", "--output", "rows.jsonl"), "name a folder"),
        (("train", "--data", "rows.jsonl", "--model", "m", "--output", "rows.jsonl/a"), "is a file, and not"),
    ],
)
def test_outputs_that_cannot_be_written_are_told_first(
    prefero: Command, rows: Path, command: tuple[str, ...], message: str
) -> None:
    (rows.parent / "taken.jsonl").mkdir()
    (rows.parent / "there.jsonl").write_text("")
    result = prefero(*command)
    assert result.returncode == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_labels_of_one_kind_are_told(prefero: Command, tmp_path: Path, ingredients: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "b", "label": False},
        {"prompt": "c", "completion": "d", "label": False},
    ]
    file = tmp_path / "labelled.jsonl"
    told = (
        "all labels are undesirable (2 rows): a method that learns from labels needs desirable responses too."
    )
    for model in ((), ("--model", ingredients / "model")):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        assert told in shown(prefero, file, "--method", "kto", *model)["notes"]
        file.write_text("".join(json.dumps({**row, "label": row is rows[0]}) + "\n" for row in rows))
        assert told not in shown(prefero, file, "--method", "kto", *model)["notes"]


def test_a_function_makes_other_rows(
    prefero: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pairing.py").write_text(
        "def named(row):\n    return {'prompt': row['q'], 'chosen': row['x'], 'rejected': row['y']}\n"
    )
    path = tmp_path / "odd.jsonl"
    path.write_text('{"q": "Why?", "x": "Because.", "y": "No."}\n')
    monkeypatch.chdir(tmp_path)
    (row,) = shown(prefero, path, "--map", "pairing:named")["rows"]
    assert [row["prompt"], *(each["text"] for each in row["responses"])] == ["Why?", "Because.", "No."]
