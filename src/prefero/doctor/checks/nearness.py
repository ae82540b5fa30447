"""Rows that nearly repeat, or nearly contradict, another."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.doctor.findings import Finding, Measure, Remedy, level_of
from prefero.doctor.look import Look
from prefero.doctor.nearness import near_rows, rows_of

HOW = (
    "Nearly the same: a Jaccard similarity of 0.8 or more of runs of eight bytes, of the prompt and of each "
    "response; found by MinHash, which misses one such couple in thousands."
)


def check(look: Look) -> Iterator[Finding]:
    known = look.repeats
    again = {*known.repeated, *(row for group in known.contradicting for row in group[1:])}
    rows = rows_of(look.corpus, again)
    if len(rows) < 2:
        return
    found = near_rows(rows)
    how = HOW
    if found.measured < found.candidates:
        how += f" Of {found.candidates:,} candidates {found.measured:,} were measured."
    near = tuple(found.near)
    share = Measure.share("rows that nearly repeat another", len(near), len(rows))
    yield Finding(
        "near_duplicates",
        "Nearly repeated rows",
        level_of(share, look=0.01, act=0.05),
        f"{len(near):,} of {len(rows):,} rows have nearly the prompt, the responses and the label of "
        "another.",
        (share,),
        stake=share.value / 2,
        why="Near copies count as often as they stand, and on both sides of a split they make held-out "
        "numbers too good.",
        papers=("Lee et al., 2022, arXiv 2107.06499",),
        threshold="1 % of the rows; to act on from 5 %",
        remedies=(Remedy("Leave the later ones out.", look.commands.without("near_duplicates")),),
        specimens=look.specimens(near, beside=found.near),
        sample=how,
        rows=near,
    )
    against = tuple(sorted({row for couple in found.opposed for row in couple}))
    share = Measure.share("rows nearly contradicted by another", len(against), len(rows))
    yield Finding(
        "near_contradictions",
        "Near contradictions",
        level_of(share, look=0.0, act=0.01),
        f"{len(against):,} of {len(rows):,} rows prefer nearly what another row with nearly the same prompt "
        "rejects.",
        (share,),
        stake=share.value,
        why="One of the two labels is wrong, or turns on the few words in which the rows differ.",
        papers=("Ray Chowdhury et al., 2024, arXiv 2403.00409",),
        threshold="any; to act on from 1 % of the rows",
        remedies=(
            Remedy("Leave them out.", look.commands.without("near_contradictions")),
            Remedy("Or train with labels that may be wrong.", look.commands.train("cdpo")),
        ),
        specimens=tuple(one for couple in found.opposed[:2] for one in look.specimens(couple)),
        sample=how,
        rows=against,
    )
