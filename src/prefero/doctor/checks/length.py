"""Whether the longer response is the better one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from prefero.doctor.findings import Finding, Level, Measure, Remedy, Unasked
from prefero.doctor.lengths import area, length_bias
from prefero.doctor.look import Look
from prefero.report.numbers import percent

LOOK, ACT = 0.55, 0.65
WHY = (
    "What length tells, a policy learns first: it writes longer (or shorter) answers, its reward accuracy "
    "rises, and win rates against a judge that likes length rise with it."
)
PAPERS = (
    "Singhal et al., 2023, arXiv 2310.03716",
    "Park et al., 2024, arXiv 2403.19159",
    "Lu et al., 2024, arXiv 2406.10957",
)


def check(look: Look) -> Iterator[Finding | Unasked]:
    if look.corpus.pairs:
        yield of_pairs(look)
    elif look.corpus.labelled:
        yield from of_labels(look)


def of_pairs(look: Look) -> Finding:
    bias = length_bias(
        [len(pair.chosen) for pair in look.corpus.pairs], [len(pair.rejected) for pair in look.corpus.pairs]
    )
    longer = bias.longer
    way = "longer" if longer.value >= 0.5 else "shorter"
    commands = look.commands
    remedies: tuple[Remedy, ...] = (
        Remedy("Let length not count in the reward.", commands.train("sampo")),
        Remedy("Or per token.", commands.train("simpo")),
        Remedy(
            "See afterwards whether answers changed their length.", commands.compare("dpo", "sampo", "simpo")
        ),
    )
    if way == "longer":
        remedies = (Remedy("Take what length earns out of the margin.", commands.train("r_dpo")), *remedies)
    return Finding(
        "length_bias",
        f"The {way} response is the chosen one" if _level(longer) != "fine" else "Length and label",
        _level(longer),
        f"In {percent(longer.value)} of the pairs the chosen response is the longer one; by length alone "
        f"{percent(max(longer.value, 1 - longer.value))} of the labels can be guessed. A response twice as "
        f"long as the other is the chosen one with probability {bias.twice.value:.2f}.",
        (longer, bias.twice, bias.area),
        stake=abs(2 * longer.value - 1),
        why=WHY,
        papers=PAPERS,
        threshold="55 % or 45 %; to act on from 65 % or 35 % (characters)",
        remedies=remedies,
    )


def _level(longer: Measure) -> Level:
    interval = longer.interval
    assert interval is not None
    if interval.low >= ACT or interval.high <= 1 - ACT:
        return "act"
    apart = interval.low > 0.5 or interval.high < 0.5
    return "look" if apart and abs(longer.value - 0.5) >= LOOK - 0.5 else "fine"


def of_labels(look: Look) -> Iterator[Finding | Unasked]:
    lengths = {
        good: np.asarray([len(one.response) for one in look.corpus.labelled if one.good is good], float)
        for good in (True, False)
    }
    if not all(map(len, lengths.values())):
        yield Unasked("Length and label", "all responses have the same label")
        return
    measure = area(
        lengths[True], lengths[False], "any good response is longer than any bad one", paired=False
    )
    way = "longer" if measure.value >= 0.5 else "shorter"
    level = _level(measure)
    yield Finding(
        "length_bias",
        f"Good responses are {way}" if level != "fine" else "Length and label",
        level,
        f"A good response is longer than a bad one with probability {measure.value:.2f}, ties counted half.",
        (measure,),
        stake=abs(2 * measure.value - 1),
        why=WHY,
        papers=PAPERS,
        threshold="0.55 or 0.45; to act on from 0.65 or 0.35 (characters)",
    )
