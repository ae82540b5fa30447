"""Lengths: how far length alone predicts the label, and the rows that a limit on the length cuts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from prefero.doctor.checks import FEW, Finding, Level, Look, Measure, Remedy, Unasked, too_few
from prefero.doctor.corpus import prompt_text, response_text
from prefero.evaluate.intervals import Interval, wilson
from prefero.report.numbers import percent

if TYPE_CHECKING:
    from prefero.doctor.policy import Policy

Z = NormalDist().inv_cdf(0.975)
"""Half the width of a normal 95 % interval, in standard deviations."""

STEEPEST = 50.0
"""The largest slope of a logistic regression, per standard deviation: the value then decides every pair."""

LOOK, ACT = 0.55, 0.65
BYTES_PER_TOKEN = 4
"""The estimate where no tokenizer counts: about right for English."""

WHY = (
    "A policy learns first what length predicts: it writes longer (or shorter) answers, its reward accuracy "
    "rises, and so do its win rates under a judge that likes length."
)
PAPERS = (
    "Singhal et al., 2023, arXiv 2310.03716",
    "Park et al., 2024, arXiv 2403.19159",
    "Lu et al., 2024, arXiv 2406.10957",
)


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Measures of how far length predicts the label: the share of pairs whose chosen response is ``longer``
    (ties half), the ``area`` under the ROC curve, and the probability that a response ``twice`` as long as
    the other is chosen, by a logistic regression on the log of the ratio."""

    longer: Measure
    area: Measure
    twice: Measure


def length_bias(chosen: Sequence[int], rejected: Sequence[int]) -> LengthBias:
    """The length bias of pairs, from their lengths in any unit."""
    better, worse = np.asarray(chosen, float), np.asarray(rejected, float)
    count = len(better)
    longer = float(((better > worse) + 0.5 * (better == worse)).mean())
    slope, error = logistic_slope(np.log((better + 1) / (worse + 1)))
    low, twice, high = (float(expit(math.log(2) * (slope + z * error))) for z in (-Z, 0, Z))
    return LengthBias(
        Measure("chosen response is the longer one", longer, wilson(longer, count), of=count),
        area(better, worse, "any chosen response is longer than any rejected one"),
        Measure("response twice as long is the chosen one", twice, Interval(low, high), of=count),
    )


def area(
    better: Float[np.ndarray, " pair"], worse: Float[np.ndarray, " pair"], name: str, *, paired: bool = True
) -> Measure:
    """The area under the ROC curve: how often a value of ``better`` exceeds one of ``worse``, ties half. The
    interval is DeLong's (1988), with the covariance within pairs if they are ``paired`` (Obuchowski,
    1997)."""
    of_better = _placements(better, worse)
    of_worse = 1 - _placements(worse, better)
    value = float(of_better.mean())
    if paired:
        together = of_better + of_worse
        variance = together.var(ddof=1) / len(together) if len(together) > 1 else 0.25
    else:
        variance = sum(
            (side.var(ddof=1) / len(side) if len(side) > 1 else 0.25) for side in (of_better, of_worse)
        )
    half = Z * math.sqrt(float(variance))
    return Measure(name, value, Interval(max(0.0, value - half), min(1.0, value + half)), of=len(better))


def _placements(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value the share of the others below it, ties half."""
    ordered = np.sort(others)
    below, upto = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (below + upto) / 2 / len(others)


def logistic_slope(x: Float[np.ndarray, " pair"]) -> tuple[float, float]:
    """The slope b and its standard error in P(chosen) = σ(b x), where x is the chosen response's lead. Beyond
    ±50 per standard deviation of x, the value decides every pair."""
    scale = float(np.sqrt(np.mean(x * x)))
    if scale == 0:
        return 0.0, 0.0
    lead = x / scale

    def gradient(slope: float) -> float:
        return float((expit(-slope * lead) * lead).sum())

    if gradient(STEEPEST) > 0:
        slope = STEEPEST
    elif gradient(-STEEPEST) < 0:
        slope = -STEEPEST
    else:
        slope = brentq(gradient, -STEEPEST, STEEPEST)
    chance = expit(slope * lead)
    information = float((chance * (1 - chance) * lead * lead).sum()) + 1e-9
    return slope / scale, 1 / math.sqrt(information) / scale


def check_length(look: Look) -> Iterator[Finding | Unasked]:
    """Length as a predictor of the label."""
    count = len(look.corpus.pairs or look.corpus.labelled)
    if 0 < count < FEW:
        yield too_few("Length and label", count, "pairs" if look.corpus.pairs else "labelled responses")
    elif look.corpus.pairs:
        yield _of_pairs(look)
    elif look.corpus.labelled:
        yield _of_labels(look)


def _of_pairs(look: Look) -> Finding:
    pairs = look.corpus.pairs
    bias = length_bias([len(pair.chosen) for pair in pairs], [len(pair.rejected) for pair in pairs])
    longer, level = bias.longer, _level(bias.longer)
    commands = look.commands
    remedies: tuple[Remedy, ...] = (
        Remedy("Use the reward per token.", commands.train("simpo")),
        Remedy("Afterwards, see whether the answers changed their length.", commands.compare("dpo", "simpo")),
    )
    if longer.value >= 0.5:
        remedies = (
            Remedy("Subtract the reward of length from the margin.", commands.train("r_dpo")),
            *remedies,
        )
    side = "longer" if longer.value >= 0.5 else "shorter"
    title = f"The {side} response is chosen more often"
    main = longer if side == "longer" else opposite(longer, "chosen response is the shorter one")
    return Finding(
        "length_bias",
        title if level != "fine" else "Length and label",
        level,
        f"In {percent(main.value)} of the pairs the chosen response is the {side} one (equal lengths count "
        "half), so length alone predicts as many of the labels. A response twice as long as the other is the "
        f"chosen one with probability {bias.twice.value:.2f}.",
        (main, bias.twice, bias.area),
        stake=abs(2 * longer.value - 1),
        why=WHY,
        papers=PAPERS,
        threshold="55 %; to act on from 65 % (characters)",
        remedies=remedies,
    )


def opposite(measure: Measure, name: str) -> Measure:
    """The share of the others."""
    interval = Interval(1 - measure.high, 1 - measure.low)
    return replace(measure, name=name, value=1 - measure.value, interval=interval)


def _level(longer: Measure) -> Level:
    if longer.low >= ACT or longer.high <= 1 - ACT:
        return "act"
    apart = longer.low > 0.5 or longer.high < 0.5
    return "look" if apart and abs(longer.value - 0.5) >= LOOK - 0.5 else "fine"


def _of_labels(look: Look) -> Finding | Unasked:
    good, bad = (
        np.asarray([len(item.response) for item in look.corpus.labelled if item.good is label], float)
        for label in (True, False)
    )
    if not len(good) or not len(bad):
        return Unasked("Length and label", "all responses have the same label")
    measure = area(good, bad, "any good response is longer than any bad one", paired=False)
    level = _level(measure)
    side = "longer" if measure.value >= 0.5 else "shorter"
    if side == "shorter":
        measure = opposite(measure, "any good response is shorter than any bad one")
    return Finding(
        "length_bias",
        f"Good responses are {side}" if level != "fine" else "Length and label",
        level,
        f"A good response is {side} than a bad one with probability {measure.value:.2f}, ties counted half.",
        (measure,),
        stake=abs(2 * measure.value - 1),
        why=WHY,
        papers=PAPERS,
        threshold="0.55; to act on from 0.65 (characters)",
    )


@dataclass(frozen=True, slots=True)
class Needed:
    """The tokens of each row (prompt and longest response), the rows that a limit cuts, and the number that
    lose the end of a response."""

    tokens: Sequence[int]
    ends: int
    cut: tuple[int, ...]
    sample: str


def check_truncation(look: Look) -> Iterator[Finding | Unasked]:
    """The rows that a limit on the length cuts."""
    if look.policy is not None and look.corpus.pairs:
        yield _truncation(look, look.policy.limit, _counted(look, look.policy))
    elif look.max_length is not None:
        yield _truncation(look, look.max_length, _estimated(look, look.max_length))
    else:
        yield Unasked("Truncation", "no limit was given (--max-length, in tokens)")


def _counted(look: Look, policy: Policy) -> Needed:
    """The tokens as training would count and cut them."""
    tokens = [
        max(len(cell.context) + len(cell.response) for cell in example.cells) + example.truncated
        for example in policy.tokens
    ]
    cut = [row for row, example in zip(policy.places, policy.tokens, strict=True) if example.truncated]
    count, total = len(policy.places), len(look.corpus.pairs)
    sample = f"On {count:,} of {total:,} pairs, drawn at random." if count < total else ""
    return Needed(tokens, policy.tokens.summary.truncated_responses, tuple(sorted(cut)), sample)


def _estimated(look: Look, limit: int) -> Needed:
    def estimate(text: str) -> int:
        return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)

    tokens, ends = [], 0
    for example in look.corpus.examples:
        longest = max(estimate(response_text(response)) + 1 for response in example.responses)
        tokens.append(estimate(prompt_text(example.prompt)) + longest)
        ends += longest >= limit
    cut = tuple(row for row, needed in enumerate(tokens) if needed > limit)
    sample = (
        f"Tokens are estimated, at {BYTES_PER_TOKEN} bytes of text per token; with a model (--model) they "
        "are counted."
    )
    return Needed(tokens, ends, cut, sample)


FATES: Mapping[str, str] = {
    "cut_response": "they lose old turns of the prompt, then the end of a response, and are left out where "
    "the prompt alone is too long",
    "keep_recent_prompt": "they lose old turns of the prompt, then its oldest tokens",
    "drop": "they are left out",
    "error": "training stops at the first of them",
}
"""The fate of rows that are too long, by ``too_long``."""


def _truncation(look: Look, limit: int, needed: Needed) -> Finding:
    count = len(needed.tokens)
    ends = needed.ends if look.too_long in ("cut_response", "keep_recent_prompt") else 0
    share = Measure.share(f"rows longer than {limit:,} tokens", len(needed.cut), count)
    enough = sorted(needed.tokens)[math.ceil(0.99 * count) - 1]
    allow = Remedy(
        "Allow as many as 99 % of the rows need.", look.commands.train("dpo", data__max_length=enough)
    )
    if look.policy is not None and look.policy.context and enough > look.policy.context:
        allow = Remedy(
            f"Use a model with a context of {enough:,} tokens; this one has {look.policy.context:,}."
        )
    return look.finding(
        "truncation",
        "Truncation",
        share,
        f"{len(needed.cut):,} of {count:,} rows have more than {limit:,} tokens: {FATES[look.too_long]} "
        f"(data.too_long={look.too_long}). At least 99 % of the rows need no more than {enough:,} tokens.",
        limits=(0.01, 0.1),
        measures=[Measure.share("rows that lose the end of a response", ends, count)],
        why="The loss then compares other texts than the annotators judged, and a response without its end "
        "teaches the policy not to stop.",
        remedies=(allow, Remedy("Or remove the long rows.", look.commands.without("truncation"))),
        sample=needed.sample,
        specimens=look.specimens(needed.cut, 1),
        rows=needed.cut,
    )
