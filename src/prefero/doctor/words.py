"""Findings in words and numbers, for the page and the terminal alike."""

from __future__ import annotations

from prefero.doctor.findings import Measure
from prefero.doctor.inspection import Inspection
from prefero.report.numbers import number, percent
from prefero.report.summary import counted


def told(measure: Measure) -> str:
    """The value with its unit."""
    return (
        percent(measure.value)
        if measure.unit == "share"
        else f"{number(measure.value)} {measure.unit}".strip()
    )


def told_interval(measure: Measure) -> str:
    """The ends of the interval, or nothing."""
    if measure.interval is None:
        return ""
    form = percent if measure.unit == "share" else number
    return f"{form(measure.interval.low)} to {form(measure.interval.high)}"


def headline(inspection: Inspection) -> str:
    """One sentence: how much there is to do, and what comes first."""
    by_level = {
        level: [one for one in inspection.findings if one.level == level] for level in ("act", "look", "fine")
    }
    act, look = by_level["act"], by_level["look"]
    if not act and not look:
        return f"Nothing stands out: {counted(len(by_level['fine']), 'check').lower()} found nothing to mend."
    parts = []
    if act:
        names = ", ".join(one.title.lower() for one in act)
        parts.append(f"{counted(len(act), 'thing')} to act on before training: {names}.")
    if look:
        names = ", ".join(one.title.lower() for one in look)
        parts.append(f"{counted(len(look), 'thing')} to look at: {names}.")
    return " ".join(parts)
