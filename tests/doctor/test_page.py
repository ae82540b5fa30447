"""The page, the terminal and the commands that findings recommend."""

from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

import prefero
from prefero.cli.train import configuration
from prefero.doctor.checks import LEVELS, Finding, Measure, in_order
from prefero.doctor.inspection import Inspection
from prefero.doctor.page import summary, write
from prefero.objectives.configurations import from_config
from prefero.storage import finite
from tests.doctor import faults


def faulty() -> list[faults.Row]:
    """Rows with every fault at once, so that every finding has something to say."""
    rows = faults.nearly_identical(faults.flipped(faults.clean(400), 0.2), 80)
    for place, row in enumerate(rows):
        row |= {"chosen_score": place % 7, "rejected_score": 2, "tie": place % 9 == 0}
        row |= {"chosen_model": "strong", "rejected_model": "weak"}
        row |= {f"annotator{k}": (place + k * (place % 5)) % 3 for k in (1, 2, 3)}
    rows[1]["chosen"] = "<script>alert(1)</script> </style> & <b>bold</b>"
    rows[2]["rejected"] = " "
    for row in rows[10:20]:
        row["chosen"] += "<|im_end|>"
    for row in rows[20:32]:
        row["chosen"] = "русский ответ"
    rows[7] = {**rows[7], "rejected": rows[7]["chosen"].upper()}
    rows[8]["rejected"] = None
    again = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[100:110]]
    circle = [{"prompt": "c", "chosen": a, "rejected": b} for a, b in ("xy", "yz", "zx")]
    near = [{**row, "prompt": f"{row['prompt']} bal"} for row in rows[120:130]]
    return [*rows, *rows[50:70], *again, *circle, *near]


@pytest.fixture(scope="module")
def inspection() -> Inspection:
    return prefero.inspect(faulty(), eval_data=faulty()[:40], max_length=24)


class Reader(HTMLParser):
    """Which tags a page has, how often, and whether every one is closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(inspection, tmp_path_factory) -> str:
    return write(inspection, tmp_path_factory.mktemp("page") / "deep" / "page.html").read_text()


def test_the_page_is_whole_and_loads_nothing(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    tags = [tag for tag, _ in reader.seen]
    assert "script" not in tags and "img" not in tags and "link" not in tags and "svg" in tags
    assert not [one for _, one in reader.seen if {"src", "onclick", "style"} & set(one)]
    assert not re.findall(r"(?:src|href)=\"(?!#)", page) and "url(" not in page


def test_text_of_the_data_is_escaped(page):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page
    assert "<b>bold" not in page


def test_the_page_has_every_finding_in_order(inspection, page):
    assert len({one.key for one in inspection.findings}) == len(inspection.findings)
    ranks = [LEVELS.index(one.level) for one in inspection.findings]
    assert ranks == sorted(ranks)
    places = [page.find(f'id="{one.key}"') for one in inspection.findings if one.level != "fine"]
    assert -1 not in places and places == sorted(places)
    for one in inspection.findings:
        assert one.title in page
        assert one.measures and 0 <= one.stake <= 1 and one.threshold


def test_every_fault_is_found(inspection):
    found = {one.key for one in inspection.findings if one.level != "fine"}
    assert found >= {
        "unreadable", "ties", "scores", "markup", "scripts", "truncation", "duplicates",
        "contradictions", "identical", "cycles", "near_duplicates", "overlap", "near_identical", "writers",
        "agreement",
    }  # fmt: skip


def test_levels_stand_before_stakes():
    def made(key, level, stake):
        return Finding(key, key, level, "", (Measure("", 0.0),), stake)

    mixed = [made("a", "look", 0.9), made("b", "act", 0.1), made("c", "fine", 1.0), made("d", "act", 0.2)]
    assert [one.key for one in in_order(mixed)] == ["d", "b", "a", "c"]


def commands(inspection: Inspection) -> list[str]:
    return [one.command for finding in inspection.findings for one in finding.remedies if one.command]


def test_every_recommended_training_is_one_that_there_is(inspection):
    """Its configuration is accepted, and its method takes its arguments."""
    trained = 0
    for command in commands(inspection):
        words = shlex.split(command)
        if words[:2] not in (["prefero", "train"], ["prefero", "compare"]):
            continue
        flags = {name: words.pop(words.index(name) + 1) for name in list(words) if name.startswith("--")}
        rest = [word for word in words[2:] if not word.startswith("--")]
        assert set(flags) <= {"--model", "--data", "--eval-data", "--method", "--methods", "--output"}
        for method in flags.get("--methods", flags.get("--method", "")).split(","):
            settings = configuration(
                rest,
                model=flags["--model"],
                data=flags["--data"],
                eval_data=flags.get("--eval-data"),
                method=method,
                output=Path(flags["--output"]),
            )
            from_config(prefero.TrainConfig.parse(settings).objective)
            trained += 1
    assert trained > 10


def test_every_recommended_filter_names_a_finding_whose_rows_it_leaves_out(inspection):
    names = set()
    for finding in inspection.findings:
        for words in (shlex.split(one.command) for one in finding.remedies):
            if words[:2] == ["prefero", "inspect"] and finding.level != "fine":
                names |= set(words[words.index("--without") + 1].split(","))
    assert names - {"unreadable"} == {
        one.key for one in inspection.findings if one.rows and one.level != "fine"
    }
    for name in names:
        assert len(inspection.without([name])) <= inspection.rows


def test_the_inspection_is_json(inspection):
    read = json.loads(json.dumps(finite(inspection.as_dict())))
    assert [one["key"] for one in read["findings"]] == [one.key for one in inspection.findings]
    first = read["findings"][0]["measures"][0]
    assert first["interval"]["low"] <= first["value"] <= first["interval"]["high"]


@pytest.mark.parametrize("width", [60, 120])
def test_the_terminal_says_what_to_do(inspection, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary(inspection, Path("x.html")))
    text = console.export_text()
    assert text.index("! ") < text.index("? ") < text.index("✓")
    assert "--without" in text and "x.html" in text
    assert max(map(len, text.splitlines())) <= width


def test_a_page_of_faultless_rows(tmp_path):
    inspection = prefero.inspect(faults.clean(60, signal=0))
    text = write(inspection, tmp_path / "p.html").read_text()
    assert "All checks passed" in text or "look at it" in text


def test_the_documentation_lists_every_finding(inspection):
    page = (Path(__file__).resolve().parents[2] / "docs" / "inspect.md").read_text(encoding="utf-8")
    told = set(
        re.findall(r"`(\w+)`", "".join(line for line in page.splitlines(True) if line.startswith("| `")))
    )
    with_a_model = {
        "reference",
        "reference_gap",
        "displacement",
        "on_policy",
        "cost",
        "same_tokens",
        "template",
    }
    in_other_layouts = {"bare", "one_label"}
    assert told == {one.key for one in inspection.findings} | with_a_model | in_other_layouts
