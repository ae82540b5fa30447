"""The committed results: what they say, and that they are brought up to date paper by paper."""

from __future__ import annotations

import json

import pytest

from lab.tests.papers.made_up import paper
from prefero.errors import PreferoError
from prefero_lab.papers import reproduce
from prefero_lab.papers.paper import Check, Expectation, Number, Paper
from prefero_lab.papers.record import read, update
from prefero_lab.papers.results import evidence_digest


@pytest.fixture(autouse=True)
def known(monkeypatch):
    there = dict.fromkeys(("good", "reversed", "checked"))
    monkeypatch.setattr("prefero_lab.papers.record.papers", lambda: there)
    return there


def test_it_has_verdicts_numbers_and_where_they_were_measured(tmp_path):
    beside = Expectation("better", "worse", "kl", "lower", counts=False)
    expected = Expectation("better", "worse", "gold")
    outcome = reproduce(paper(expected, beside, key="good"), output=tmp_path)
    update(tmp_path / "measured.json", [outcome])
    entry = read(tmp_path / "measured.json")["good"]
    assert entry["verdict"] == "holds" == entry["evidence"][0]["verdict"]
    assert entry["digest"] == evidence_digest(outcome.paper)
    first, second = entry["evidence"][0]["comparisons"]
    assert first["counts"] and not second["counts"]
    low, high = first["interval"]
    assert low < first["difference"] < high
    assert first["difference"] == pytest.approx(outcome.evidence[0].comparisons[0].found.value, rel=1e-3)
    assert set(entry["evidence"][0]["arms"]) == {"start", "better", "worse"}
    measured = entry["measured"]
    assert measured["seeds"] == [[100, 101, 102]]
    assert "cores" in measured["machine"] and measured["commit"] and measured["date"]


def test_a_part_of_the_survey_leaves_the_rest_and_papers_that_are_no_more_go(tmp_path, known):
    file = tmp_path / "measured.json"
    update(file, [reproduce(paper(key="good"), output=tmp_path)])
    turned = reproduce(paper(Expectation("worse", "better", "gold"), key="reversed"), output=tmp_path)
    update(file, [turned])
    assert {key: one["verdict"] for key, one in read(file).items()} == {
        "good": "holds",
        "reversed": "does not hold here",
    }
    del known["good"]
    update(file, [turned])
    assert list(read(file)) == ["reversed"]


def test_a_check_has_all_values_of_each_number_and_is_json_whatever_they_are(tmp_path):
    numbers = (Number("bounded", 0.123456, 0, 1), Number("broken", float("nan"), low=0))
    check = Check("an identity", lambda seed: numbers, "another", seconds=1, seeds=2)
    one = Paper("p000", "t", "Nobody, 2020", "nothing", (check,), key="checked", area="nowhere")
    update(tmp_path / "measured.json", [reproduce(one, output=tmp_path)])
    text = (tmp_path / "measured.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))
    found = read(tmp_path / "measured.json")["checked"]["evidence"][0]["numbers"]
    assert found["bounded"] == {"values": [0.1235, 0.1235], "low": 0, "high": 1}
    assert found["broken"]["values"] == [None, None]


def test_a_file_that_is_something_else_is_not_written_over(tmp_path):
    file = tmp_path / "measured.json"
    file.write_text("[1, 2]")
    with pytest.raises(PreferoError, match="no record of results"):
        update(file, [])
    assert file.read_text() == "[1, 2]"
