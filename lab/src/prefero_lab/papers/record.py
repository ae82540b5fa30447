"""The survey's results as data: one file with a verdict and its numbers for every paper, to be committed.

It says on which commit and machine each was measured, and is brought up to date paper by paper. Each entry
has the digest of the evidence that it was measured by (:func:`~prefero_lab.papers.results.evidence_digest`):
once the paper has another one, the entry is out of date.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from prefero.errors import PreferoError
from prefero.storage import write_json
from prefero_lab.papers.outcome import CheckOutcome, ClaimOutcome, Outcome
from prefero_lab.papers.results import evidence_digest
from prefero_lab.papers.survey import papers

DIGITS = 4
"""Significant ones: more would change with every processor."""


def read(file: str | Path) -> dict[str, dict[str, Any]]:
    """What the file says, by the papers' keys.

    Raises:
        PreferoError: it is not such a file.
    """
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))["papers"]
    except (ValueError, KeyError, TypeError) as error:
        raise PreferoError(
            f"{file} is no record of results ({error}); `prefero reproduce --all --record {file}` writes one "
            "where there is no file"
        ) from None


def update(file: str | Path, found: Sequence[Outcome]) -> None:
    """The file with these outcomes in the place of earlier ones, and without papers that are no more. It
    appears whole or not at all."""
    target = Path(file)
    entries = read(target) if target.exists() else {}
    entries |= {one.paper.key: entry(one) for one in found}
    content = {"papers": {key: entries[key] for key in papers() if key in entries}}
    write_json(target, content, indent=1)


def entry(outcome: Outcome) -> dict[str, Any]:
    """A paper's verdict, the numbers that it comes from, and where and when they were measured."""
    results = [result for one in outcome.evidence for result in one.results]
    return {
        "verdict": outcome.verdict,
        "digest": evidence_digest(outcome.paper),
        "evidence": [
            _claim(one) if isinstance(one, ClaimOutcome) else _check(one) for one in outcome.evidence
        ],
        "measured": {
            "date": date.today().isoformat(),
            "commit": ", ".join(sorted({result.commit for result in results})),
            "machine": ", ".join(sorted({result.machine for result in results})),
            "seeds": [list(one.seeds) for one in outcome.evidence],
        },
    }


def _claim(outcome: ClaimOutcome) -> dict[str, Any]:
    return {
        "verdict": outcome.verdict,
        "comparisons": [
            {
                "expected": str(one.expected),
                "counts": one.expected.counts,
                "difference": rounded(one.found.value),
                "interval": [rounded(one.found.low), rounded(one.found.high)],
                "verdict": one.verdict,
            }
            for one in outcome.comparisons
        ],
        "arms": {
            arm: {metric: rounded(one.mean) for metric, one in metrics.items()}
            for arm, metrics in outcome.arms.items()
        },
    }


def _check(outcome: CheckOutcome) -> dict[str, Any]:
    """Each number with all its values, seed by seed."""
    numbers: dict[str, dict[str, Any]] = {}
    for one in (number for some in outcome.numbers for number in some):
        row: Mapping[str, Any] = {"values": [], "low": rounded(one.low), "high": rounded(one.high)}
        numbers.setdefault(one.what, dict(row))["values"].append(rounded(one.value))
    return {"verdict": outcome.verdict, "numbers": numbers}


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
