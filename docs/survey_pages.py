"""The pages of ``docs/survey/``, one a paper and an index, written from ``prefero.papers``.

They say what is claimed and how it is measured, and never what came of it: that is measured when it is asked
for. ``python -m docs.generate`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from docs.method_pages import linked, table
from prefero.papers.paper import Claim, Evidence, Paper
from prefero.papers.survey import papers
from prefero.report.numbers import duration


def pages() -> dict[str, str]:
    """File names and their contents."""
    return {"index.md": index(), **{f"{key}.md": page(paper) for key, paper in papers().items()}}


def index() -> str:
    parts = [
        "# Papers",
        "What papers claim, as experiments of this library: `prefero reproduce KEY` measures one, `prefero "
        "reproduce --area AREA` an area. [How they are judged](../papers.md).",
    ]
    areas: dict[str, list[Paper]] = {}
    for paper in papers().values():
        areas.setdefault(paper.area, []).append(paper)
    for area, there in areas.items():
        rows = [
            [f"[`{one.key}`]({one.key}.md)", one.title, linked(one.citation), duration(one.seconds)]
            for one in there
        ]
        parts += [f"## {area}", table(["key", "title", "paper", "takes"], rows)]
    return "\n\n".join(parts) + "\n"


def page(paper: Paper) -> str:
    methods = ", ".join(f"[`{key}`](../methods/{key}.md)" for key in paper.methods)
    facts = [f"- **Paper**: {linked(paper.citation)}", f"- **Adds**: {paper.adds}"]
    facts += [f"- **Methods**: {methods}"] if methods else []
    parts = [
        f"# {paper.key}: {paper.title}",
        "\n".join(facts),
        f"```bash\nprefero reproduce {paper.key}\n```",
    ]
    for number, one in enumerate(paper.evidence, 1):
        name = "Claim" if isinstance(one, Claim) else "Check"
        parts.append(f"## {name}" + (f" {number}" if len(paper.evidence) > 1 else ""))
        parts += evidence(one)
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


def spelled(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"`{name}: {json.dumps(value, ensure_ascii=False, default=str)}`" for name, value in settings.items()
    )
