"""Pairs whose two sides differ in a few words."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import numpy as np

from prefero.doctor.differences import changed_share, shared_beginning, words
from prefero.doctor.findings import Finding, Measure, Remedy, level_of
from prefero.doctor.look import Look
from prefero.report.numbers import percent

ALIKE = 0.1
"""Share of changed words up to which two responses are nearly the same."""


def check(look: Look) -> Iterator[Finding]:
    pairs = look.corpus.pairs
    if not pairs:
        return
    changed, begun = [], []
    for pair in pairs:
        chosen, rejected = words(pair.chosen), words(pair.rejected)
        changed.append(changed_share(chosen, rejected))
        begun.append(2 * shared_beginning(chosen, rejected) / max(len(chosen) + len(rejected), 1))
    rows = tuple(pair.row for pair, share in zip(pairs, changed, strict=True) if share <= ALIKE)
    near = Measure.share("pairs that differ in a tenth of their words at most", len(rows), len(pairs))
    opening = Measure.share(
        "pairs that share half of their words at the beginning",
        int((np.asarray(begun) >= 0.5).sum()),
        len(pairs),
    )
    middle = median(changed)
    yield Finding(
        "near_identical",
        "Pairs that are nearly the same",
        level_of(near, look=0.02, act=0.1),
        f"{len(rows):,} of {len(pairs):,} pairs differ in at most a tenth of their words. In the median pair "
        f"{percent(middle)} of the words differ, and {percent(median(begun))} of the words "
        "are a common beginning.",
        (near, opening, Measure("words changed, median pair", middle)),
        stake=near.value,
        why="Of what two responses share, a loss on their difference learns nothing, and what it does to the "
        "few other words may lower the chosen response along with the rejected one.",
        papers=("Pal et al., 2024, arXiv 2402.13228", "Razin et al., 2024, arXiv 2410.08847"),
        threshold="2 % of the pairs; to act on from 10 %",
        remedies=(
            Remedy("Keep the chosen response from falling.", look.commands.train("dpop")),
            Remedy(
                "Or add its likelihood to the loss.", look.commands.train("dpo", objective__plus__nll=0.2)
            ),
            Remedy("Or leave them out.", look.commands.without("near_identical")),
        ),
        specimens=look.specimens(rows),
        rows=rows,
    )
