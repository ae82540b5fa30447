"""In which scripts prompts and responses are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prefero.doctor.corpus import as_text
from prefero.doctor.findings import Finding, Measure, Remedy, level_of
from prefero.doctor.look import Look
from prefero.doctor.scripts import script
from prefero.report.numbers import percent


def check(look: Look) -> Iterator[Finding]:
    asked: dict[int, str] = {}
    kinds: Counter[str] = Counter()
    other: list[int] = []
    sided = list(look.corpus.sided)
    for row, text, _ in sided:
        if row not in asked:
            asked[row] = script(as_text(look.corpus.examples[row].prompt))
        own = script(text)
        kinds[own] += 1
        if own and asked[row] and own != asked[row]:
            other.append(row)
    if not sided:
        return
    share = Measure.share("responses in another script than the prompt", len(other), len(sided))
    told = ", ".join(f"{name or 'no letters'} {percent(n / len(sided))}" for name, n in kinds.most_common(5))
    rows = tuple(dict.fromkeys(other))
    yield Finding(
        "scripts",
        "Scripts",
        level_of(share, look=0.01, act=0.1),
        f"Responses are written in: {told}. {len(other):,} of {len(sided):,} are not in the script of their "
        "prompt.",
        (share,),
        stake=share.value,
        why="Answers in the wrong language are learnt like any other habit; where translation was asked for, "
        "they are right. Scripts are told apart, not languages that share one.",
        threshold="1 % of the responses; to act on from 10 %",
        remedies=(
            Remedy("Leave these rows out, if nothing asked for them.", look.commands.without("scripts")),
        ),
        specimens=look.specimens(rows),
        rows=rows,
    )
