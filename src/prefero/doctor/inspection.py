"""``prefero.inspect``: every check on a data set, in the order of what matters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefero.data.sources import Source
from prefero.doctor.checks import contents, length, repeats
from prefero.doctor.commands import Commands
from prefero.doctor.corpus import Corpus, read
from prefero.doctor.findings import Finding, Unasked, in_order
from prefero.doctor.look import Check, Look
from prefero.doctor.overview import facts, histogram, quantiles
from prefero.doctor.overview import lengths as lengths_of

CHECKS: Mapping[str, Check] = {
    "contents": contents.check,
    "repeats": repeats.check,
    "length": length.check,
}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found, what has to be acted on first; and what was not looked at, and why."""

    name: str
    format: str
    rows: int
    pairs: int
    findings: tuple[Finding, ...]
    unasked: tuple[Unasked, ...] = ()
    facts: tuple[tuple[str, int], ...] = ()
    lengths: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    histogram: tuple[Sequence[float], Mapping[str, Sequence[float]]] = ((), {})
    seconds: float = 0.0
    corpus: Corpus | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, key: str) -> Finding:
        """The finding of that key."""
        for finding in self.findings:
            if finding.key == key:
                return finding
        raise KeyError(key)

    def as_dict(self) -> dict[str, Any]:
        """The inspection as JSON has it."""
        return {
            "name": self.name,
            "format": self.format,
            "rows": self.rows,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 1),
            "facts": dict(self.facts),
            "lengths": self.lengths,
            "findings": [finding.as_dict() for finding in self.findings],
            "not_looked_at": [asdict(one) for one in self.unasked],
        }


def inspect(
    data: Source,
    *,
    split: str = "train",
    format: str = "auto",
    limit: int | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Inspection:
    started = time.perf_counter()
    corpus, _ = read(data, split=split, format=format, limit=limit)
    named = str(data) if isinstance(data, str | Path) else "DATA"
    look = Look(corpus, Commands(named))
    findings: list[Finding] = []
    unasked: list[Unasked] = []
    for name, check in CHECKS.items():
        progress(name)
        for found in check(look):
            (findings if isinstance(found, Finding) else unasked).append(found)  # type: ignore[arg-type]
    lengths = lengths_of(corpus)
    return Inspection(
        corpus.examples.name,
        corpus.examples.format,
        len(corpus),
        len(corpus.pairs),
        in_order(findings),
        tuple(unasked),
        tuple(facts(corpus)),
        quantiles(lengths),
        histogram(lengths),
        time.perf_counter() - started,
        corpus,
    )
