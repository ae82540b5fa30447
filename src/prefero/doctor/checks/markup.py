"""Responses that hold what belongs to the template: marks of turns, end tokens as text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from prefero.doctor.findings import Finding, Measure, Remedy, level_of
from prefero.doctor.look import Look

MARKS = re.compile(
    r"<\|[a-z_]+\|>|</?s>|\[/?INST\]|<<SYS>>|<(?:start|end)_of_turn>"
    r"|\n\n(?:Human|Assistant):|\n### (?:Instruction|Response):"
)


def check(look: Look) -> Iterator[Finding]:
    rows: list[int] = []
    marks: Counter[str] = Counter()
    count = 0
    for row, text, _ in look.corpus.sided:
        count += 1
        if found := set(MARKS.findall(text)):
            rows.append(row)
            marks.update(mark.strip() for mark in found)
    if not count:
        return
    share = Measure.share("responses with marks of a template", len(rows), count)
    common = ", ".join(f"“{mark}” {n:,}" for mark, n in marks.most_common(5))
    only = tuple(dict.fromkeys(rows))
    yield Finding(
        "markup",
        "Marks of a template in responses",
        level_of(share, look=0.002, act=0.02),
        f"{len(rows):,} of {count:,} responses hold a mark of turns or an end token as text"
        + (f": {common}." if common else "."),
        (share,),
        stake=share.value,
        why="The template adds such marks itself. In a response they teach the policy to speak for the user, "
        "or to write an end token that does not end.",
        threshold="0.2 % of the responses; to act on from 2 %",
        remedies=(Remedy("Leave these rows out, or cut the marks.", look.commands.without("markup")),),
        specimens=look.specimens(only),
        rows=only,
    )
