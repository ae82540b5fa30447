"""``prefero reproduce`` and its page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from lab.tests.papers.made_up import MadeUp, paper
from prefero_lab.papers import reproduce
from prefero_lab.papers.page import render
from prefero_lab.papers.paper import FIRST_JUDGED_SEED, Expectation
from tests.cli.conftest import environment, prefero  # noqa: F401

S = FIRST_JUDGED_SEED


@pytest.fixture(autouse=True)
def made_up_papers(monkeypatch):
    there = {
        "good": paper(key="good"),
        "reversed": paper(Expectation("worse", "better", "gold"), key="reversed"),
        "broken": paper(Expectation("better", "worse", "silver"), key="broken"),
    }
    monkeypatch.setattr("prefero_lab.papers.survey.papers", lambda: there)
    return there


def test_alone_it_lists_papers_with_what_they_take(prefero):  # noqa: F811
    done = prefero("reproduce")
    assert done.returncode == 0 and done.stderr == ""
    for word in ("good", "nowhere", "Nobody, 2020", "1 s", "3 papers, 3 s in all", "start models"):
        assert word in done.stdout
    listed = json.loads(prefero("reproduce", "--json").stdout)
    assert [one["key"] for one in listed] == ["good", "reversed", "broken"]
    assert not any("verdict" in one for one in listed)


@pytest.mark.parametrize(("key", "verdict"), [("good", "holds"), ("reversed", "does not hold here")])
def test_a_measured_paper_ends_well_whatever_its_verdict(prefero, key, verdict):  # noqa: F811
    done = prefero("reproduce", key)
    assert done.returncode == 0 and verdict in done.stdout and "95 % interval" in done.stdout
    (one,) = json.loads(prefero("reproduce", key, "--json").stdout)["papers"]
    assert one["verdict"] == verdict
    comparison = one["evidence"][0]["comparisons"][0]
    low, high = comparison["interval"]
    assert low < comparison["difference"] < high and len(comparison["by_seed"]) == 3


def test_one_seed_is_no_verdict(prefero):  # noqa: F811
    done = prefero("reproduce", "good", "--seeds", "1")
    assert "too small to tell" in done.stdout and "one seed: none" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["god"], "did you mean 'good'?"),
        (["--area", "nowere"], "did you mean 'nowhere'?"),
        (["--tune"], "name the papers to measure"),
        (["good", "--seeds", "0"], "--seeds"),
        (["broken"], "nothing measures 'silver'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(prefero, arguments, message):  # noqa: F811
    done = prefero("reproduce", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("prefero: ") and message in done.stderr


def test_one_broken_paper_does_not_cost_the_others(prefero, tmp_path):  # noqa: F811
    done = prefero("reproduce", "--all", "--report", "--json")
    assert done.returncode == 1 and "broken: PreferoError: nothing measures" in done.stderr
    payload = json.loads(done.stdout)
    assert [one["key"] for one in payload["papers"]] == ["good", "reversed"]
    assert "silver" in payload["not_measured"]["broken"]
    page = (tmp_path / payload["report"]).read_text()
    assert "nothing measures" in page and page.count('<details class="paper"') == 3


def test_ctrl_c_keeps_what_is_finished_and_says_so(prefero, tmp_path, made_up_papers):  # noqa: F811
    made_up_papers["cut"] = paper(key="cut", better={"gain": 1.0, "interrupt": S + 1})
    done = prefero("reproduce", "cut")
    assert done.returncode == 130 and done.stdout == ""
    assert "4 of 9 results of cut are in reproduced: the same command resumes from there" in done.stderr
    assert len(list((tmp_path / "reproduced" / "results").iterdir())) == 4


class Balanced(HTMLParser):
    """Which elements are open, and whether any ends that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        assert not any(name in ("src", "href") and not value.startswith("#") for name, value in attributes)
        if tag not in ("meta", "path", "circle", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag


def test_the_page_has_every_number_and_needs_nothing_else(tmp_path):
    found = [
        reproduce(paper(key="good"), output=tmp_path),
        reproduce(paper(Expectation("worse", "better", "gold"), key="reversed"), output=tmp_path, seeds=1),
    ]
    page = render(found, {}, tmp_path / "page" / "report.html").read_text()
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert "A &lt;paper&gt;" in page and "A <paper>" not in page
    assert page.count('<svg class="chart"') == 2 and "too small to tell" in page
    found_gain = found[0].evidence[0].comparisons[0].found.value
    assert f"+{found_gain:.3f}" in page
    assert not re.search(r"https?://", page)
    assert {"data-key", "data-rank", "data-area", "data-seconds"} <= set(re.findall(r"data-\w+", page))


def test_a_metric_that_broke_is_shown_as_such(tmp_path):
    class Broken(MadeUp):
        def measure(self, made, model, seed):
            return {"gold": [float("nan")] * 3, "kl": [float("inf")]}

    outcome = reproduce(paper(experiment=Broken()), output=tmp_path)
    assert outcome.verdict == "too small to tell"
    assert "not a number" in render([outcome], {}, tmp_path / "report.html").read_text()
    json.loads((tmp_path / "made_up.json").read_text(), parse_constant=lambda name: pytest.fail(name))
