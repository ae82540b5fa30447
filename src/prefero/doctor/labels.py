"""Labels: agreement of annotators, the share of wrong labels, and scores that contradict the label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import binom, chi2

from prefero.doctor.checks import FEW, Finding, Level, Look, Measure, Remedy, Unasked, level_of, too_few
from prefero.doctor.repeats import repeats_of
from prefero.doctor.sides import FEWEST, probe_of, sample_of_probe
from prefero.evaluate.intervals import Interval, wilson
from prefero.report.numbers import number, percent

RESAMPLES = 1000
"""Resamples of the rows for the interval of Krippendorff's α."""

LOOKS_FLIPPED = "labels that look flipped to a classifier of words"

RATES = np.arange(0, 0.5, 0.0025)
"""Flip rates that are tried."""

SCALES = np.linspace(math.log(0.02), math.log(60), 25)
"""Logarithms of the scales of a predictor that are tried before the best is refined."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """``alpha`` is Krippendorff's for nominal votes: 1 is full agreement, 0 is chance. ``observed`` is the
    share of pairs of votes on the same row that agree, ``clashing`` of those without a tie that differ (over
    ``decided`` rows). ``split`` are the rows with different votes, ``judges`` the median number of votes."""

    alpha: float
    interval: Interval
    observed: float
    clashing: float | None
    decided: int
    split: tuple[int, ...]
    rows: int
    judges: int


def agreement(rows: Sequence[int], votes: Sequence[Sequence[Any]], *, seed: int = 0) -> Agreement | None:
    """Krippendorff's α (2011) of rows with their votes, its interval by resampling the rows; None if no row
    has two votes. A vote is 1 (first), 0 (second), ½ (tie), any other name of a choice, or None (not
    cast)."""
    cast = [(row, [vote for vote in own if vote is not None]) for row, own in zip(rows, votes, strict=True)]
    cast = [(row, own) for row, own in cast if len(own) > 1]
    if not cast:
        return None
    kinds = sorted({vote for _, own in cast for vote in own})
    counts = np.asarray([[own.count(kind) for kind in kinds] for _, own in cast], float)
    draws = np.random.default_rng(seed).integers(len(cast), size=(RESAMPLES, len(cast)))
    weights = np.stack([np.bincount(draw, minlength=len(cast)) for draw in draws]).astype(float)
    low, high = np.quantile(_alpha(counts, weights), [0.025, 0.975])
    clashing, decided = _clashing(counts, kinds)
    sizes = counts.sum(1)
    same = (counts * (counts - 1)).sum(1) / (sizes * (sizes - 1))
    return Agreement(
        float(_alpha(counts, np.ones((1, len(cast))))[0]),
        Interval(float(low), float(high)),
        float(same.mean()),
        clashing,
        decided,
        tuple(row for row, own in cast if len(set(own)) > 1),
        len(cast),
        int(np.median(sizes)),
    )


def _alpha(counts: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """α for each weighting of the rows: 1 − observed over expected disagreement."""
    sizes = counts.sum(1)
    disagreeing = (sizes * sizes - (counts * counts).sum(1)) / (sizes - 1)
    kinds = weights @ counts
    total = kinds.sum(1)
    observed = weights @ disagreeing / total
    expected = (total * total - (kinds * kinds).sum(1)) / (total * (total - 1))
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), 1.0)


def _clashing(counts: NDArray[np.float64], kinds: Sequence[Any]) -> tuple[float | None, int]:
    first, second = (
        counts[:, kinds.index(side)] if side in kinds else np.zeros(len(counts)) for side in (1, 0)
    )
    sizes = first + second
    decided = sizes > 1
    if not decided.any():
        return None, 0
    clashes = (2 * first * second)[decided] / (sizes * (sizes - 1))[decided]
    return float(clashes.mean()), int(decided.sum())


def flip_rate(leads: Float[np.ndarray, " pair"], independent: int | None = None) -> Measure:
    """The flip rate ε of labels from a predictor that was fitted on other pairs.

    Its ``leads`` are the scores of the chosen minus those of the rejected responses. P(chosen first) = ε + (1
    − 2ε) σ(a · lead) is fitted by maximum likelihood (Ray Chowdhury et al., 2024, arXiv 2403.00409), with the
    interval of the profile likelihood. ``independent`` is the number of prompts, if pairs share some.
    """
    scale = float(np.sqrt(np.mean(leads * leads)))
    if scale == 0:
        return Measure(LOOKS_FLIPPED, 0.0, Interval(0.0, 0.5))
    profile = np.asarray([_log_likelihood(leads / scale, rate) for rate in RATES])
    weight = (independent or len(leads)) / len(leads)
    likely = RATES[2 * weight * (profile.max() - profile) <= chi2.ppf(0.95, df=1)]
    # The ends of the interval lie between two rates that were tried.
    step = float(RATES[1])
    low, high = max(0.0, float(likely[0]) - step), min(0.5, float(likely[-1]) + step)
    return Measure(LOOKS_FLIPPED, float(RATES[int(profile.argmax())]), Interval(low, high))


def _log_likelihood(leads: Float[np.ndarray, " pair"], rate: float) -> float:
    """The log-likelihood at the best scale of the predictor."""

    def loss(log_scale: float) -> float:
        chances = rate + (1 - 2 * rate) * expit(math.exp(log_scale) * leads)
        return -float(np.log(np.maximum(chances, 1e-300)).sum())

    losses = [loss(log_scale) for log_scale in SCALES]
    best = int(np.argmin(losses))
    bounds = SCALES[max(best - 1, 0)], SCALES[min(best + 1, len(SCALES) - 1)]
    refined = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return -min(losses[best], float(refined.fun))


def of_disagreement(rate: float, count: int, name: str) -> Measure:
    """The flip rate ε of single judgements, from how often two of the same comparison differ: 2ε(1 − ε).
    ``count`` comparisons were judged repeatedly."""

    def flips(disagreement: float) -> float:
        return (1 - math.sqrt(max(0.0, 1 - 2 * disagreement))) / 2

    ends = wilson(rate, count)
    return Measure(name, flips(rate), Interval(flips(ends.low), flips(ends.high)))


def of_majority(rate: float, judges: int) -> float:
    """The probability that most of ``judges`` are wrong, each with probability ``rate``; half of a draw."""
    draw = binom.pmf(judges // 2, judges, rate) / 2 if judges % 2 == 0 else 0.0
    return float(binom.sf(judges // 2, judges, rate) + draw)


def check_labels(look: Look) -> Iterator[Finding | Unasked]:
    """The agreement of annotators, and the share of wrong labels."""
    votes = look.corpus.votes
    agreed = agreement(list(votes), list(votes.values()), seed=look.seed)
    if agreed and agreed.rows < FEW:
        yield too_few("Agreement of annotators", agreed.rows, "rows with several votes")
    elif agreed:
        yield _agreement(look, agreed)
    else:
        yield Unasked("Agreement of annotators", "no row has several votes (annotator1, annotator2, …)")
    if look.corpus.labelled:
        yield _one_label(look)
    if look.corpus.pairs:
        noise = _noise(look, agreed)
        yield noise or Unasked("Wrong labels", f"fewer than {FEWEST} pairs, and no {FEW} repeated judgements")


def _one_label(look: Look) -> Finding:
    labelled = look.corpus.labelled
    good = sum(item.good for item in labelled)
    most = max(good, len(labelled) - good)
    share = Measure.share("responses with the commoner label", most, len(labelled))
    only = most == len(labelled)
    return Finding(
        "one_label",
        "Labels of one kind" if only else "Labels of both kinds",
        "act" if only else "fine",
        f"{good:,} of {len(labelled):,} responses are labelled good (desirable), the others bad "
        "(undesirable).",
        (share,),
        stake=float(only),
        why="A method that learns from labels, such as KTO, sets the one kind against the other.",
        threshold="all of the labelled responses",
        remedies=(Remedy("Add responses with the other label."),) if only else (),
    )


def _agreement(look: Look, agreed: Agreement) -> Finding:
    alpha = Measure("Krippendorff's α", agreed.alpha, agreed.interval, unit="", of=agreed.rows)
    split = Measure.share("rows with a dissenting vote", len(agreed.split), agreed.rows)
    level: Level = "act" if agreed.interval.high < 0.4 else "look" if agreed.alpha < 0.667 else "fine"
    return Finding(
        "agreement",
        "Annotators disagree" if level != "fine" else "Agreement of annotators",
        level,
        f"Two votes on the same row agree in {percent(agreed.observed)} of the cases. Corrected for chance, "
        f"that is α = {number(agreed.alpha)} (1 is full agreement, 0 is chance). {len(agreed.split):,} of "
        f"{agreed.rows:,} rows have a dissenting vote.",
        (alpha, split, Measure("pairs of votes that agree", agreed.observed)),
        stake=(1 - max(agreed.alpha, 0)) / 2,
        why="No policy can agree with people more than they agree with each other: this bounds held-out "
        "accuracy. By convention α ≥ 0.8 is reliable, and α ≥ 0.667 allows tentative conclusions.",
        papers=("Krippendorff, 2011, Computing Krippendorff's alpha-reliability",),
        threshold="α below 0.667; to act on below 0.4",
        remedies=(
            Remedy("Train with a method that allows for wrong labels.", look.commands.train("cdpo")),
            Remedy("Or keep only the unanimous rows.", look.commands.without("agreement")),
        ),
        specimens=look.specimens(agreed.split),
        rows=agreed.split,
    )


def _noise(look: Look, agreed: Agreement | None) -> Finding | None:
    """The share of wrong labels, by the first that there is: annotators, repeated judgements, a
    classifier."""
    measures = [*_by_annotators(agreed), *_by_repetition(look)]
    probe = probe_of(look)
    if probe is not None:
        measures.append(flip_rate(probe.leads, probe.prompts))
        most = min(1 - probe.interval.low, 0.5)
        measures.append(Measure("upper bound on flipped labels, by its accuracy", most))
    if not measures:
        return None
    best = measures[0]
    level = level_of(best, look=0.05, act=0.1)
    if level == "look" and best.low < 0.01:
        level = "fine"
    rate = min(max(round(best.value, 2), 0.01), 0.45)
    estimate = (
        f"About {percent(best.value)} of the labels look flipped"
        if best.high - best.low < 0.15
        else f"The share of flipped labels cannot be told well: the estimate is {percent(best.value)}"
    )
    return Finding(
        "noise",
        "Wrong labels",
        level,
        f"{estimate}; the 95 % interval is {percent(best.low)} to {percent(best.high)}.",
        tuple(measures),
        stake=min(2 * best.value, 1.0),
        why="A flipped label pulls the policy in the wrong direction as hard as a right label pulls it in "
        "the right direction: with a share ε flipped, 1 − 2ε of the signal remains.",
        papers=(
            "Ray Chowdhury et al., 2024, arXiv 2403.00409",
            "Wu et al., 2024, arXiv 2407.07880",
            "Mitchell, 2023, A note on DPO with noisy preferences",
        ),
        threshold="5 %, where the interval excludes 1 %; to act on from 10 %",
        remedies=(
            Remedy(
                "Tell the loss how many labels are flipped.",
                look.commands.train("rdpo", objective__flip_rate=rate),
            ),
            Remedy("Or smooth the labels.", look.commands.train("cdpo", objective__smoothing=rate)),
            Remedy("Or give pairs with a large loss less weight.", look.commands.train("dr_dpo")),
        ),
        sample="Annotators are assumed to err independently. The estimate by a classifier assumes that "
        "labels are flipped at random, whatever the pair, and that the classifier errs less often the surer "
        "it is." + sample_of_probe(look),
    )


def _by_annotators(agreed: Agreement | None) -> Iterator[Measure]:
    if agreed is None or agreed.clashing is None or agreed.decided < FEW:
        return
    name = "single votes that are wrong, by their disagreement"
    single = of_disagreement(agreed.clashing, agreed.decided, name)
    if agreed.judges > 2:
        ends = (of_majority(end, agreed.judges) for end in (single.low, single.high))
        name = f"wrong labels by the majority of {agreed.judges} votes"
        yield Measure(name, of_majority(single.value, agreed.judges), Interval(*ends))
    yield single


def _by_repetition(look: Look) -> Iterator[Measure]:
    """The flip rate by enough repeated comparisons, if any judgements differ: mere copies say nothing."""
    judged = repeats_of(look).judged
    clashes = [2 * a * b / ((a + b) * (a + b - 1)) for a, b in judged]
    if any(clashes) and len(clashes) >= FEW:
        name = "wrong labels, by comparisons judged repeatedly"
        yield of_disagreement(sum(clashes) / len(clashes), len(clashes), name)


def check_scores(look: Look) -> Iterator[Finding]:
    """Scores of a judge that contradict the labels."""
    scored = [(pair.row, pair.scores[0] - pair.scores[1]) for pair in look.corpus.pairs if pair.scores]
    if not scored:
        return
    against = tuple(row for row, margin in scored if margin < 0)
    equal = sum(margin == 0 for _, margin in scored)
    share = Measure.share("pairs whose rejected response has the higher score", len(against), len(scored))
    first = Remedy("Remove these pairs.", look.commands.without("scores"))
    if len(against) > len(scored) / 2:
        first = Remedy(
            "Most pairs are so: the two responses, or their scores, are probably exchanged in the columns. "
            "Look at the rows, and name the columns as they are meant (--columns, data.columns in a recipe).",
            look.commands.preview(),
        )
    yield look.finding(
        "scores",
        "Scores that contradict labels",
        share,
        f"In {len(against):,} of {len(scored):,} scored pairs the rejected response has the higher score; in "
        f"{equal:,} both have the same score.",
        limits=(0.005, 0.05),
        of="scored pairs",
        measures=[Measure.share("pairs with equal scores", equal, len(scored))],
        stake=min(1.0, 2 * share.value),
        why="Either the label or the score is wrong. Methods that read the score (odpo, rpo_reward_aware) "
        "and methods that read the label then learn opposite things from the same pair.",
        papers=("Amini et al., 2024, arXiv 2402.10571", "Deng et al., 2025, arXiv 2502.14560"),
        remedies=(
            first,
            Remedy(
                "On the other pairs, ask for a margin that grows with the scores' difference.",
                look.commands.train("odpo"),
            ),
        ),
        rows=against,
    )
