"""The pages of ``docs/survey/``, one per paper and an index, written from ``prefero_lab.papers``.

They state the claim, how it is measured, and the results in ``lab/measured.json``, with their commit and
machine; ``make survey`` measures them again. ``python -m docs.generate`` writes the pages: they are part of
the one site, and share the tables of its other pages.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from docs.method_pages import linked, table
from prefero.report.numbers import duration, number, signed
from prefero_lab.papers.paper import Claim, Evidence, Paper
from prefero_lab.papers.record import read
from prefero_lab.papers.survey import find, papers
from prefero_lab.papers.verdicts import FAILS, HOLDS, UNCLEAR

MEASURED = Path(__file__).parents[1] / "lab" / "measured.json"
BLOCK = re.compile(r"(<!-- measured ([\w ]+) -->).*?<!-- end -->", re.DOTALL)


def pages() -> dict[str, str]:
    """File names and their contents."""
    measured = read(MEASURED)
    made = {f"{key}.md": page(paper, measured.get(key)) for key, paper in papers().items()}
    return {"index.md": index(measured), **made}


def index(measured: Mapping[str, Any]) -> str:
    count = Counter(one["verdict"] for one in measured.values())
    counts = ", ".join(f"{count[verdict]} {verdict}" for verdict in (HOLDS, UNCLEAR, FAILS))
    parts = [
        "# Papers",
        "What papers claim, as experiments of this library: `prefero reproduce KEY` measures one, `prefero "
        "reproduce --area AREA` an area. [How they are judged](../papers.md).",
        "A verdict is about small models in small worlds, and a paper's is that of its weakest comparison; "
        "what was compared, and by how much, is on its page. "
        f"Of {len(measured)} measured: {counts}.",
    ]
    areas: dict[str, list[Paper]] = {}
    for paper in papers().values():
        areas.setdefault(paper.area, []).append(paper)
    for area, there in areas.items():
        rows = [
            [
                f"[`{one.key}`]({one.key}.md)",
                one.title,
                linked(one.citation),
                measured[one.key]["verdict"] if one.key in measured else "not measured",
                duration(one.seconds),
            ]
            for one in there
        ]
        parts += [f"## {area}", table(["key", "title", "paper", "verdict", "takes"], rows)]
    return "\n\n".join(parts) + "\n"


def page(paper: Paper, measured: Mapping[str, Any] | None) -> str:
    methods = ", ".join(f"[`{key}`](../methods/{key}.md)" for key in paper.methods)
    facts = [f"- **Paper**: {linked(paper.citation)}", f"- **Adds**: {paper.adds}"]
    facts += [f"- **Methods**: {methods}"] if methods else []
    facts += [f"- **Here**: {measured['verdict']} ([numbers](#measured))"] if measured else []
    parts = [
        f"# {paper.key}: {paper.title}",
        "\n".join(facts),
        f"```bash\nprefero reproduce {paper.key}\n```",
    ]
    for place, one in enumerate(paper.evidence, 1):
        name = "Claim" if isinstance(one, Claim) else "Check"
        parts.append(f"## {name}" + (f" {place}" if len(paper.evidence) > 1 else ""))
        parts += evidence(one)
    if measured:
        parts += ["## Measured", *results(measured)]
    if paper.note:
        parts += ["## Note", paper.note]
    return "\n\n".join(parts) + "\n"


def evidence(one: Evidence) -> list[str]:
    parts = [one.statement, f"**Refuted by** {one.refuted_by}."]
    takes = f"{one.seeds} seeds, about {duration(one.seconds)} on one quiet core"
    if one.first_seconds:
        takes += f"; {duration(one.first_seconds)} more the first time, for the start models"
    parts.append(f"**Takes** {takes}.")
    if isinstance(one, Claim):
        arms = [
            (arm.name, "the start model" if arm.settings is None else spelled(arm.settings))
            for arm in one.arms
        ]
        parts.append(table(("arm", "settings"), arms))
        expected = [
            (str(each), "" if each.counts else "beside: it does not count for the verdict")
            for each in one.expected
        ]
        parts.append(table(("expected", ""), expected))
        kind, settings = type(one.experiment), spelled(one.experiment.settings)
        parts.append(
            f"Experiment: `{kind.__module__}.{kind.__qualname__}`"
            + (f" with {settings}." if settings else ".")
        )
    return parts


def results(measured: Mapping[str, Any]) -> list[str]:
    """The verdict and its numbers, and where they were measured."""
    where = measured["measured"]
    parts = [
        f"**{measured['verdict']}**, as of {where['date']}, on commit {where['commit']}; {where['machine']}."
    ]
    for one in measured["evidence"]:
        parts += [_comparisons(one), _arms(one)] if "comparisons" in one else [_numbers(one)]
    return parts


def _comparisons(claim: Mapping[str, Any]) -> str:
    rows = [
        (
            ("" if one["counts"] else "(beside) ") + one["expected"],
            _signed(one["difference"]),
            " to ".join(map(_signed, one["interval"])),
            one["verdict"],
        )
        for one in claim["comparisons"]
    ]
    return table(("expected", "better by", "95 % interval", "verdict"), rows)


def _arms(claim: Mapping[str, Any]) -> str:
    metrics = list(dict.fromkeys(metric for one in claim["arms"].values() for metric in one))
    rows = [
        (arm, *(_number(there.get(metric)) for metric in metrics)) for arm, there in claim["arms"].items()
    ]
    return table(("mean over seeds", *(metric.replace("_", " ") for metric in metrics)), rows)


def _numbers(check: Mapping[str, Any]) -> str:
    rows = [
        (
            what,
            ", ".join(_number(value) for value in one["values"]),
            f"{_number(one['low'], '−∞')} to {_number(one['high'], '∞')}",
        )
        for what, one in check["numbers"].items()
    ]
    return table(("number", "seed by seed", "has to lie in"), rows)


def _signed(value: float | None) -> str:
    return "?" if value is None else signed(value)


def _number(value: float | None, absent: str = "") -> str:
    return absent if value is None else number(value, 4)


def cited(text: str) -> str:
    """A page with its tables of measured claims as they are: what stands between ``<!-- measured KEY -->``,
    with one key or several, and ``<!-- end -->``.

    Raises:
        PreferoError: a key that no paper has.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n\n{_claims(found[2].split())}\n\n<!-- end -->", text)


def _claims(keys: Sequence[str]) -> str:
    """Claims and verdicts of papers, each with the comparison that decided the verdict."""
    measured, rows = read(MEASURED), []
    for paper in map(find, keys):
        entry = measured.get(paper.key)
        statement = " ".join(one.statement for one in paper.evidence)
        link = f"[`{paper.key}`](survey/{paper.key}.md)"
        rows.append((link, statement, _in_short(entry) if entry else "not measured"))
    return table(("paper", "claim", "here"), rows)


def _in_short(entry: Mapping[str, Any]) -> str:
    """The verdict, and the first comparison that has it."""
    verdict = entry["verdict"]
    for one in (each for evidence in entry["evidence"] for each in evidence.get("comparisons", ())):
        if one["counts"] and one["verdict"] == verdict:
            low, high = map(_signed, one["interval"])
            return f"**{verdict}**: {one['expected']}, {_signed(one['difference'])} ({low} to {high})"
    return f"**{verdict}**"


def spelled(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"`{name}: {json.dumps(value, ensure_ascii=False, default=str)}`" for name, value in settings.items()
    )
