"""Results as Markdown on the terminal, and as files when they are to be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; all columns but the first stand to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]
    rule = (
        "|"
        + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths))
        + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def machine_note(machine: Mapping[str, Any]) -> str:
    """One paragraph that says what the numbers were measured on."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, load {machine['load_before']:.1f} at the start; "
        f"Python {machine['python']}, {versions}; {machine['system']}."
    )


def verdict(name: str, value: float, target: float, *, at_least: bool) -> str:
    """One line: what was measured, what was wanted, and whether that is so."""
    met = value >= target if at_least else value <= target
    return (
        f"- {name}: {value:.3g}× (target {'≥' if at_least else '≤'} {target}×): {'met' if met else 'MISSED'}"
    )


def publish(name: str, text: str, figures: Mapping[str, Any], *, save: bool) -> None:
    """Print ``text``; with ``save`` also keep it, and the figures, under ``benchmarks/results``."""
    print(text, flush=True)
    if save:
        RESULTS.mkdir(exist_ok=True)
        stamped = {"created": datetime.now(UTC).isoformat(timespec="seconds"), **figures}
        (RESULTS / f"{name}.json").write_text(json.dumps(stamped, indent=1) + "\n")
        (RESULTS / f"{name}.md").write_text(text + "\n")
