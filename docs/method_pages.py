"""The pages of ``docs/methods/``, one a method and an index, written from the registry.

``python -m docs.generate`` writes them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefero.cli.catalogue import FEEDBACK, describe, overview, special_case
from prefero.objectives import methods


def pages() -> dict[str, str]:
    """File names and their contents."""
    written = {f"{key}.md": page(entry) for key, entry in described().items()}
    return {"index.md": index(overview()), **written}


@functools.cache
def described() -> Mapping[str, Mapping[str, Any]]:
    """All that there is to say of every method, by key."""
    return {key: describe(key) for key in sorted(methods())}


def index(entries: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"[`{entry['key']}`]({entry['key']}.md)",
            entry["title"],
            ", ".join([*entry["feedback"], *entry["annotations"]]),
            linked(entry["citation"]),
        ]
        for entry in sorted(entries, key=lambda entry: entry["key"])
    ]
    kinds = "\n".join(f"- *{kind}*: {meaning}" for kind, meaning in FEEDBACK.items())
    return (
        "\n\n".join(
            [
                "# Methods",
                f"{len(entries)} published methods, each a name away: `prefero train --method NAME`, "
                '`prefero.method("NAME")`. `prefero methods --data unpaired --no-reference` finds what fits.',
                f"What data carry:\n\n{kinds}",
                table(["method", "what it is", "data", "paper"], rows),
            ]
        )
        + "\n"
    )


def page(entry: Mapping[str, Any]) -> str:
    parts = [
        f"# {entry['key']}: {entry['title']}",
        entry["description"],
        "\n".join(f"    {line}" for line in entry["equation"].splitlines()),
        facts(entry),
    ]
    if entry["parameters"]:
        rows = [[f"`{one['name']}`", f"`{one['default']}`", allowed(one)] for one in entry["parameters"]]
        parts.append("## Knobs\n\n" + table(["argument", "default", "may be"], rows))
    if entry["settings"]:
        rows = [
            [name, ", ".join(f"`{key}: {value}`" for key, value in values.items())]
            for name, values in entry["settings"].items()
        ]
        parts.append("## Published settings\n\n" + table(["for", "settings"], rows))
    if entry["equals"] or entry["special_cases_of"]:
        cases = [f"- It equals {special_case(one)}." for one in entry["equals"]]
        cases += [f"- {case_of(one)} equals it." for one in entry["special_cases_of"]]
        parts.append("## Special cases\n\n" + "\n".join(cases))
    if entry["relatives"]:
        parts.append(f"## Relatives\n\n{entry['relatives']}")
    if entry["pitfalls"]:
        parts.append(f"## Pitfalls\n\n{entry['pitfalls']}")
    parts.append(f"## Use\n\n```yaml\nobjective: {{method: {entry['key']}}}\n```")
    return "\n\n".join(parts) + "\n"


def case_of(one: Mapping[str, Any]) -> str:
    key, rest = one["method"], special_case(one).removeprefix(one["method"])
    return f"[`{key}`]({key}.md){rest}"


def facts(entry: Mapping[str, Any]) -> str:
    needs = entry["needs"]
    rows = [("Paper", linked(entry["citation"])), ("Data", "; ".join(entry["data"]))]
    rows += [("Responses", ", ".join(needs["responses"])), ("Models", ", ".join(needs["models"]))]
    rows.append(("Made for", entry["states"] or ""))
    rows.append(("Measured too", ", ".join(needs["signals"])))
    rows += [
        (f"Column `{name}`", f"{column['meaning']} (fields: {', '.join(column['fields'])})")
        for name, column in needs["columns"].items()
    ]
    rows.append(("Also scored", ", ".join(f"the `{view}` view" for view in needs["views"])))
    if needs["whole_step"]:
        rows.append(("Step", "the loss is taken over the whole optimizer step at once"))
    rows.append(("Also called", ", ".join(f"`{alias}`" for alias in entry["aliases"])))
    return "\n".join(f"- **{name}**: {value}" for name, value in rows if value)


def allowed(one: Mapping[str, Any]) -> str:
    return ", ".join(f"`{choice}`" for choice in one["choices"]) if one["choices"] else one["range"] or ""


def linked(citation: str) -> str:
    """The citation with its arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", citation)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
