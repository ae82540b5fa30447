"""``prefero inspect`` on the command line, and mistakes that are named before anything is looked at."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import prefero
from prefero.errors import PreferoError
from tests.doctor import faults


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [*faults.clean(80), *faults.clean(8)]
    rows[3]["rejected"] = None
    lines = [json.dumps({**row, "source": place}) for place, row in enumerate(rows)]
    file.write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    return file


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    from prefero.cli.main import run as command

    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["prefero", "inspect", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            command()
        return (ended.value.code, *capfd.readouterr())

    return call


def test_it_writes_a_page_and_says_what_to_do(run, data, tmp_path):
    code, out, _ = run(data)
    assert code == 0 and (tmp_path / "pairs-inspection.html").stat().st_size > 10_000
    assert "Repeated rows" in out and "--without duplicates" in out.replace("\n", " ").replace("  ", " ")


def test_the_first_rows_are_shown(run, data, tmp_path):
    code, out, _ = run(data)
    assert code == 0 and "pairs.jsonl, row 1" in out and "not read: source" in out
    assert "The first rows: layout pairs" in (tmp_path / "pairs-inspection.html").read_text("utf-8")
    found = json.loads(run(data, "--json")[1])
    assert [row["origin"] for row in found["first_rows"]] == [f"pairs.jsonl, row {n}" for n in (1, 2, 3)]
    assert found["first_rows"][0]["unread"] == ["source"]


def test_rows_are_read_through_a_function(run, tmp_path):
    rows = [{"q": row["prompt"], "ab": [row["chosen"], row["rejected"]]} for row in faults.clean(40)]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:4]]))
    (tmp_path / "sides_of.py").write_text(
        "def pair(row):\n    return {'prompt': row['q'], 'chosen': row['ab'][0], 'rejected': row['ab'][1]}\n"
    )
    code, out, _ = run("odd.jsonl", "--map", "sides_of:pair", "--json")
    found = json.loads(out)
    assert code == 0 and found["pairs"] == 44
    (repeated,) = (one for one in found["findings"] if one["key"] == "duplicates")
    assert "--map=sides_of:pair" in json.dumps(repeated)
    code, out, _ = run(
        "odd.jsonl", "--map", "sides_of:pair", "--without", "duplicates", "--save", "kept.jsonl"
    )
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert code == 0 and kept == rows  # as they are in the file


def test_json_and_what_is_saved(run, data, tmp_path):
    """Saved rows are as they stood, fields that nobody reads too; unreadable rows are left out always."""
    code, out, _ = run(data, "--json", "--without", "duplicates", "--save", "kept.jsonl", "-o", "p.html")
    found = json.loads(out)
    assert code == 0 and found["page"] == "p.html" and found["saved_rows"] == 80
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [row["source"] for row in kept] == [*(place for place in range(80) if place != 3), 83]
    again = prefero.inspect(str(tmp_path / "kept.jsonl"))
    assert not again["duplicates"].rows and again["unreadable"].measures[0].count == 0


def test_the_file_of_rows_is_replaced_only_if_wanted(run, data, tmp_path):
    (tmp_path / "kept.jsonl").write_text("mine")
    saving = (data, "--without", "duplicates", "--save", "kept.jsonl")
    code, _, err = run(*saving)
    assert code == 2 and "replace it with --overwrite" in err
    assert (tmp_path / "kept.jsonl").read_text() == "mine"
    assert run(*saving, "--overwrite")[0] == 0
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 80


def test_the_fate_of_long_rows_is_told(run, data):
    limit = ("--max-length", "9", "--json")
    for given, fate in (
        ((), "lose old turns"),
        (("--too-long", "drop"), "they are left out (data.too_long=drop)"),
    ):
        findings = {one["key"]: one for one in json.loads(run(data, *limit, *given)[1])["findings"]}
        assert fate in findings["truncation"]["message"]
        ends = findings["truncation"]["measures"][1]
        assert bool(ends["count"]) == (not given)
        commands = [remedy["command"] for remedy in findings["truncation"]["remedies"]]
        assert all(("too" in str(command)) == bool(given) for command in commands)


def test_rows_set_aside_stay_in_what_is_saved(run, data, tmp_path):
    _, out, _ = run(data, "--json", "--eval-data", "0.2", "--without", "empty", "--save", "kept.jsonl")
    assert json.loads(out)["saved_rows"] == 87


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "there is no such file"),
        (["pairs.jsonl", "--without", "duplicates"], "--without and --save go together"),
        (["pairs.jsonl", "--save", "kept.jsonl"], "--without and --save go together"),
        (["pairs.jsonl", "--without", "duplicates", "--save", "kept.csv"], "ends in .jsonl"),
        (["pairs.jsonl", "--without", "duplicates", "--save", "pairs.jsonl"], "the data that are read"),
        (["pairs.jsonl", "--without", "duplicate", "--save", "kept.jsonl"], "did you mean 'duplicates'"),
        (["pairs.jsonl", "--eval-data", "1.5"], "between 0 and 1"),
        (["pairs.jsonl", "--eval-data", "0.0001"], "holds out none"),
        (["pairs.jsonl", "--eval-data", "gone.jsonl"], "there is no such file"),
        (["pairs.jsonl", "--max-length", "1"], "at least"),
        (["pairs.jsonl", "--format", "pears"], "unknown format"),
        (["pairs.jsonl", "--limit", "0"], "limit"),
        (["pairs.jsonl", "--template", "none"], "--template needs --model"),
        (["pairs.jsonl", "--rows", "9", "--dtype", "float64"], "--rows, --dtype need --model"),
        (["pairs.jsonl", "--too-long", "drop"], "--too-long needs --max-length or --model"),
        (["pairs.jsonl", "--too-long", "dorp", "--max-length", "9"], "did you mean 'drop'?"),
    ],
)
def test_mistakes(run, data, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2 and message in err and "Traceback" not in err and out == ""
    assert not list(tmp_path.glob("*.html")) and not (tmp_path / "kept.jsonl").exists()


def test_mistakes_in_python(tmp_path):
    with pytest.raises(PreferoError, match="holds no rows"):
        prefero.inspect([])
    with pytest.raises(PreferoError, match="none of the rows"):
        prefero.inspect([{"prompt": "a", "chosen": "b", "rejected": None}])
    with pytest.raises(PreferoError, match="layout of the rows is not known"):
        prefero.inspect([{"x": 1}])


def test_a_generator_and_a_data_set_can_be_read_again(tmp_path):
    import datasets

    rows = [*faults.clean(30), *faults.clean(3)]
    for source in (
        iter(rows),
        datasets.Dataset.from_list(rows),
        datasets.DatasetDict(train=datasets.Dataset.from_list(rows)),
    ):
        found = prefero.inspect(source)
        assert found.save(tmp_path / "kept.jsonl", without=["duplicates"]) == 30


def test_images_as_responses_are_inspected() -> None:
    """As far as the checks are of labels, prompts and repetitions; those of texts are not for them."""
    image = np.zeros((4, 4, 3), np.uint8)
    rows = [{"prompt": f"a cat {i}", "chosen": image + i, "rejected": image + 10 * i + 1} for i in range(5)]
    found = prefero.inspect([*rows, rows[2], {**rows[3], "rejected": rows[3]["chosen"]}])
    assert found["duplicates"].measures[0].count == 1
    assert found["unreadable"].measures[0].count == 1  # one image on both sides
    assert "length_bias" not in found and "scripts" not in found
    assert any("the responses are images" in skipped.reason for skipped in found.unasked)
    assert set(found.lengths) == {"prompt"}
    assert found.preview.rows[0].responses[0].text.startswith("[image: ")


def test_few_rows_tell_no_tendency(tmp_path) -> None:
    votes = {"annotator1": 1, "annotator2": 2}
    rows = [
        {"prompt": f"p{i}", "response1": "a much longer answer", "response2": "no", **votes} for i in range(3)
    ]
    pairs = [
        {"prompt": f"p{i}", "chosen": "a much longer answer", "rejected": "no", "chosen_model": "x",
         "rejected_model": "y"}
        for i in range(12)
    ]  # fmt: skip
    found = prefero.inspect(pairs)
    assert {finding.level for finding in found.findings} == {"fine"} and "length_bias" not in found
    reasons = {skipped.title: skipped.reason for skipped in found.unasked}
    for title in ("Length and label", "Writers"):
        assert "12 pairs" in reasons[title] and "too few" in reasons[title]
    assert "agreement" not in prefero.inspect(rows)


def test_rows_beyond_the_limit_are_told(run, data, tmp_path):
    code, out, _ = run(data, "--limit", "40")
    assert code == 0 and "the first 40 rows (--limit)" in " ".join(out.split())
    inspection = prefero.inspect(str(data), limit=40)
    assert "--limit=40" in inspection.commands.without("duplicates")
    assert "--limit" not in inspection.commands.preview()
    assert not prefero.inspect(str(data)).limited
