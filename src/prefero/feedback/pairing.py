"""From scored responses to pairs: pure functions of their arguments and a generator.

The rules take the scores of the responses to one prompt, in the order of the responses, and say which of them
meet.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from prefero.errors import PreferoError
from prefero.feedback.judges import Scored


def bradley_terry_pairs(
    scored: Sequence[Scored], *, scale: float, generator: torch.Generator
) -> list[dict[str, Any]]:
    """Pairs of neighbours (0 and 1, 2 and 3, …), labelled as a Bradley–Terry annotator would.

    The first of two is chosen with probability σ(scale · (its score - the other's)); ``scale`` in 1/score,
    from 0 (coin toss) upwards. Two equal texts make no pair, nor does a response that was cut off, as a row
    cannot say that it was. Rows are in the explicit-prompt layout, with the scores.

    Raises:
        PreferoError: neighbours answer different prompts, or their number is odd.
    """
    if len(scored) % 2:
        raise PreferoError(f"pairs need an even number of responses, two a prompt; got {len(scored)}.")
    firsts, seconds = scored[::2], scored[1::2]
    draws = torch.rand(len(firsts), generator=generator, dtype=torch.float64)
    gaps = torch.tensor(
        [a.score - b.score for a, b in zip(firsts, seconds, strict=True)], dtype=torch.float64
    )
    first_chosen = (draws < torch.sigmoid(scale * gaps)).tolist()
    rows = []
    for a, b, first in zip(firsts, seconds, first_chosen, strict=True):
        if a.sample.prompt != b.sample.prompt:
            raise PreferoError(f"two responses of a pair answer {a.sample.prompt!r} and {b.sample.prompt!r}.")
        if a.sample.text == b.sample.text or not (a.sample.ended and b.sample.ended):
            continue
        rows.append(row(a, b) if first else row(b, a))
    return rows


def row(chosen: Scored, rejected: Scored) -> dict[str, Any]:
    """A pair in the explicit-prompt layout, with its scores."""
    return {
        "prompt": chosen.sample.prompt,
        "chosen": chosen.sample.text,
        "rejected": rejected.sample.text,
        "chosen_score": chosen.score,
        "rejected_score": rejected.score,
    }


Pair = tuple[int, int]
"""The places of the better and of the worse response among those to one prompt."""

Rule = Callable[[Sequence[float]], Pair | Sequence[Pair] | None]
"""The scores of the responses to a prompt to the pairs that they make."""


def pairs_by(rule: Rule, scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """The pairs that a rule makes of the responses to each prompt, as rows.

    Responses to one prompt stand in a row. The rule sees those that ended by themselves, as a row cannot say
    that one was cut off, and is not asked where fewer than two are left. Two equal texts make no pair.
    """
    rows = []
    for _, answers in itertools.groupby(scored, key=lambda one: one.sample.prompt):
        ended = [one for one in answers if one.sample.ended]
        if len(ended) < 2:
            continue
        found = rule([one.score for one in ended])
        pairs = [] if found is None else [found] if isinstance(found, tuple) else found
        rows += [
            row(ended[better], ended[worse])
            for better, worse in pairs
            if ended[better].sample.text != ended[worse].sample.text
        ]
    return rows


def known(scores: Sequence[float]) -> Sequence[float]:
    """The scores. Raises :class:`PreferoError` for one that is not a number (NaN), which is neither above nor
    below any other, so that where it stood would decide what is best."""
    for place, score in enumerate(scores):
        if math.isnan(score):
            raise PreferoError(
                f"score {place + 1} of {len(scores)} is not a number (NaN): leave out what was not judged"
            )
    return scores


def ordered(first: int, second: int, scores: Sequence[float]) -> Pair | None:
    """The two with the higher score first; None if they tie."""
    known([scores[first], scores[second]])
    if scores[first] == scores[second]:
        return None
    return (first, second) if scores[first] > scores[second] else (second, first)


def best_and_worst(scores: Sequence[float]) -> Pair:
    """The highest and the lowest score, the earlier of equals."""
    places = range(len(known(scores)))
    return max(places, key=lambda i: scores[i]), min(places, key=lambda i: scores[i])


def max_min(scores: Sequence[float]) -> Pair | None:
    """Best against worst, the default of iterative DPO; None where the two tie, so that the prompt is left
    out. This and the next three: Xiong et al., 2023, arXiv 2312.11456, and its released workflow."""
    return ordered(*best_and_worst(scores), scores)


def max_random(scores: Sequence[float]) -> Pair | None:
    """Best against the first response, or the second if the first is the best: samples come in no order."""
    best = best_and_worst(scores)[0]
    return ordered(best, 1 if best == 0 else 0, scores)


def max_max(scores: Sequence[float]) -> Pair | None:
    """Best against second best."""
    best = best_and_worst(scores)[0]
    others = [place for place in range(len(scores)) if place != best]
    return ordered(best, max(others, key=lambda i: scores[i]), scores)


def max_min_penalised(scores: Sequence[float], lengths: Sequence[float], penalty: float) -> Pair | None:
    """Best against worst by score − penalty · length (characters in the released code), then put in the order
    of the scores themselves."""
    penalised = [score - penalty * length for score, length in zip(scores, lengths, strict=True)]
    return ordered(*best_and_worst(penalised), scores)


def best_against_worst_few(scores: Sequence[float], count: int = 2) -> list[Pair]:
    """Every one of the ``count`` best against every one of the ``count`` worst, none of them on both sides:
    UPO's candidates. Wang et al., 2024, arXiv 2409.11212."""
    ranked = sorted(range(len(known(scores))), key=lambda i: scores[i], reverse=True)
    few = min(count, len(ranked) // 2)
    pairs = ((better, worse) for better in ranked[:few] for worse in ranked[len(ranked) - few :])
    return [(better, worse) for better, worse in pairs if scores[better] > scores[worse]]


def without_median(scores: Sequence[float]) -> list[int]:
    """The places of all responses but the one of median score, in their order: MPO's sets of an odd number of
    samples become equally large. Gupta et al., 2024, arXiv 2412.04628."""
    ranked = sorted(range(len(known(scores))), key=lambda i: scores[i])
    left_out = {ranked[len(ranked) // 2]} if len(ranked) % 2 else set[int]()
    return [place for place in range(len(scores)) if place not in left_out]


def teacher_pairs(
    scores: Sequence[float],
    *,
    min_positive_score: float = 5,
    teacher_margin: float = 2,
    student_margin: float = 1,
    only_teacher: bool = False,
) -> list[Pair]:
    """DNO's pairs of a teacher's response (place 0) and the student's samples, scored from 1 to 6.

    The better response must score ``min_positive_score`` and beat the worse by its writer's margin.
    ``only_teacher`` is the restrictive ablation: the better one is the teacher's. Rosset et al., 2024, arXiv
    2404.03715.
    """
    positives = [0] if only_teacher else range(len(known(scores)))
    return [
        (better, worse)
        for better in positives
        if scores[better] >= min_positive_score
        for worse in range(len(scores))
        if better != worse
        and scores[better] - scores[worse] >= (student_margin if better else teacher_margin)
    ]


def confident_pairs(scores: Sequence[float], *, tau: float = 1.0, eta: float = 0.85) -> list[Pair]:
    """RS-DPO: every ordered pair with σ((r_j − r_l)/τ) above η. Khaki et al., 2024, arXiv 2402.10038.

    Raises:
        PreferoError: ``eta`` is below ½, where equal scores would be accepted in both orders, or not below 1;
            ``tau`` is not positive.
    """
    if not 0.5 <= eta < 1:
        raise PreferoError(f"eta is {eta}; expected a probability from 0.5 to below 1.")
    if not tau > 0:
        raise PreferoError(f"tau is {tau}; expected a positive temperature.")
    places = range(len(known(scores)))
    threshold = tau * math.log(eta / (1 - eta))
    return [(j, k) for j in places for k in places if scores[j] - scores[k] > threshold]


POINTS: Mapping[str, float] = {
    "mu_minus_2sigma": -2.0,
    "mu_minus_sigma": -1.0,
    "mu": 0.0,
    "mu_plus_sigma": 1.0,
    "mu_plus_2sigma": 2.0,
}


def score_points(scores: Sequence[float], *, ddof: Literal[0, 1] = 0) -> dict[str, float]:
    """Seven places in the distribution of a prompt's scores: its ends, its mean, one and two standard
    deviations (of the population, or with ``ddof=1`` of the sample) from it. Xiao et al., 2025, arXiv
    2502.16825."""
    mean = statistics.fmean(known(scores))
    deviation = statistics.stdev(scores) if ddof else statistics.pstdev(scores)
    inner = {name: mean + factor * deviation for name, factor in POINTS.items()}
    return {"min": min(scores), **inner, "max": max(scores)}


def nearest_to(scores: Sequence[float], point: float) -> int:
    """The response whose score is nearest to the point, the earlier of equals."""
    return min(range(len(known(scores))), key=lambda i: abs(scores[i] - point))


POINT_PAIRS = tuple(
    (better, worse)
    for place, better in enumerate(("min", *POINTS, "max"))
    for worse in ("min", *POINTS, "max")[:place]
)
"""The 21 ways to take the better response from a higher point than the worse."""


def point_pair(scores: Sequence[float], better: str = "max", worse: str = "mu_minus_2sigma") -> Pair | None:
    """The responses nearest to two of the :func:`score_points`; None if that is one response, or all score
    the same."""
    points = score_points(scores)
    return ordered(nearest_to(scores, points[better]), nearest_to(scores, points[worse]), scores)


def best_and_worst_of_some(scores: Sequence[float], some: Sequence[int]) -> Pair | None:
    """The best of all responses against the worst of a few, drawn at random (five in the paper): a rejected
    response that does not get worse with the number of samples. Xiao et al., 2025, arXiv 2502.16825."""
    return ordered(best_and_worst(scores)[0], min(some, key=lambda i: scores[i]), scores)


def easy_to_hard(scores: Sequence[float], reference_logps: Sequence[float] | None = None) -> list[Pair]:
    """Curry-DPO: the best response against each other one, the easiest pair first; round t trains on pair t.

    Easy is a wide gap of scores, or where ``reference_logps`` are given of log π_ref. Equal scores make no
    pair. Pattnaik et al., 2024, arXiv 2403.07230.
    """
    best = best_and_worst(scores)[0]
    by = scores if reference_logps is None else known(reference_logps)
    worse = [place for place in range(len(scores)) if scores[place] < scores[best]]
    return [(best, place) for place in sorted(worse, key=lambda i: by[i])]


def verifiable_candidates(
    verdicts: Sequence[int],
    lengths: Sequence[int],
    *,
    max_tokens: int = 2048,
    both_wrong: bool = True,
) -> tuple[int | None, list[int]]:
    """DPO-VP: the chosen response of a prompt and those that the rejected one is drawn from.

    A verdict is 1 for a correct answer, 0 for a wrong one in the right format, −1 for no answer. The chosen
    is the longest correct one below ``max_tokens`` (of all correct ones if none is), else the longest of
    verdict 0, unless ``both_wrong`` is False. Rejected are those of verdict −1, else those of verdict 0 that
    are left. None and nothing where a side is empty. Tu et al., 2025, arXiv 2503.12854.
    """
    by_verdict = {
        verdict: [place for place, own in enumerate(verdicts) if own == verdict] for verdict in (1, 0, -1)
    }
    correct = by_verdict[1]
    fitting = [place for place in correct if lengths[place] < max_tokens]
    pool = fitting or correct or (by_verdict[0] if both_wrong else [])
    if not pool:
        return None, []
    chosen = max(pool, key=lambda i: lengths[i])
    rejected = by_verdict[-1] or [place for place in by_verdict[0] if place != chosen]
    return (chosen, rejected) if rejected else (None, [])
