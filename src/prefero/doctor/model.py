"""Checks of the data with the model to be aligned: ranking, displacement, distance from its samples, cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from prefero.doctor.checks import FEW, NEVER, Finding, Level, Look, Measure, Remedy, Unasked, too_few
from prefero.doctor.policy import Policy
from prefero.evaluate.intervals import mean
from prefero.evaluate.ranking import loss_that_orders, ordered
from prefero.report.numbers import duration, number, percent

UNCLEAR = 0.1
"""Nats per token up to which the responses of a pair are nearly equally likely."""

BETA = 0.1
"""DPO's β in the advice on the reference."""


def check_model(look: Look) -> Iterator[Finding | Unasked]:
    """Ranking of the pairs by the model, displacement, distance from its own samples, cost of training."""
    policy = look.policy
    if policy is None or not look.corpus.pairs:
        yield Unasked("Checks with the model", "there are no pairs to score")
        return
    if len(policy.scored) < FEW:
        yield too_few("Ranking, displacement and samples of the model", len(policy.scored), "pairs (--rows)")
    else:
        for name, check in STAGES.items():
            look.progress(name)
            yield check(look, policy)
    look.progress("the cost of training")
    yield _cost(look, policy)


def _sample(look: Look, policy: Policy) -> str:
    count, total = len(policy.scored), len(look.corpus.pairs)
    return "" if count == total else f"On {count:,} of {total:,} pairs, drawn at random (--rows)."


def _ranking(look: Look, policy: Policy) -> Finding:
    margin = policy.logps.margin()
    right, by_token = ordered(margin), ordered(policy.logps.margin(per_token=True))
    count = len(right)
    total = Measure.share("pairs that the model orders as the labels do", int(right.sum()), count)
    token = Measure.share("the same by the mean log-probability per token", int(by_token.sum()), count)
    wrong = margin[~right]
    level: Level = "look" if total.high < 0.5 else "fine"
    message = (
        f"Before training the chosen response is the more likely one in {percent(total.value)} of the "
        f"pairs; per token, in {percent(token.value)}."
    )
    if len(wrong):
        middle = wrong.quantile(0.5)
        needed = float(loss_that_orders(middle, BETA))
        message += (
            f" In the median of the wrongly ordered pairs the log-probabilities differ by "
            f"{number(float(-middle))} nats: DPO with β = {BETA} orders it correctly when its loss is below "
            f"{number(needed)}."
        )
    return Finding(
        "reference",
        "How the model orders the pairs",
        level,
        message,
        (total, token),
        stake=max(0.0, 1 - 2 * total.value),
        why="DPO rarely corrects the order of a pair about which the reference is sure and wrong: the reward "
        "accuracy rises, but the policy still prefers the rejected response.",
        papers=("Chen et al., 2024, arXiv 2405.19534",),
        threshold="the whole interval is below 50 %",
        remedies=(
            Remedy(
                "Reduce the weight of the reference.", look.commands.train("dpo_gamma", objective__gamma=0.5)
            ),
            Remedy(
                "Or fine-tune on the chosen responses, before or at the same time.",
                look.commands.train("dpo", objective__plus__nll=0.2),
            ),
        ),
        sample=_sample(look, policy),
    )


def _reference_gap(look: Look, policy: Policy) -> Finding:
    gap = policy.logps.margin(per_token=True).abs()
    unclear = Measure.share(
        f"pairs less than {UNCLEAR} nats per token apart", int((gap < UNCLEAR).sum()), len(gap)
    )
    order = gap.argsort(stable=True)
    nearest = tuple(sorted(policy.places[policy.scored[i]] for i in order[: len(gap) // 2].tolist()))
    return look.finding(
        "reference_gap",
        "Pairs that the model finds equally likely",
        unclear,
        f"In {percent(unclear.value)} of the pairs the two responses are nearly equally likely per token; "
        f"the median gap is {number(float(gap.quantile(0.5)))} nats.",
        limits=(0.5, NEVER),
        of="pairs",
        measures=[Measure("median gap", float(gap.quantile(0.5)), unit="nats per token")],
        stake=unclear.value / 2,
        why="A wide gap under the reference is a sign of a clear difference in quality: trained on the 30 to "
        "50 % of the pairs with the widest gaps, DPO did as well as on all, or better.",
        papers=("Diwan et al., 2025, arXiv 2501.15109", "Chen et al., 2025, arXiv 2505.05465"),
        remedies=(
            Remedy(
                "Keep the half of the pairs with the widest gaps.",
                look.commands.without("reference_gap", rows=len(look.corpus.pairs)),
            ),
        ),
        sample=_sample(look, policy),
        rows=nearest,
        specimens=(),
    )


def _displacement(look: Look, policy: Policy) -> Finding:
    scores = policy.ches.normalised
    displacing = scores >= 0
    share = Measure.share("pairs with a CHES score of 0 or more", int(displacing.sum()), len(scores))
    worst = scores.argsort(descending=True, stable=True).tolist()
    rows = tuple(sorted(policy.places[policy.scored[i]] for i in worst if displacing[i]))
    low, middle, high = np.quantile(scores.numpy(), [0.05, 0.5, 0.95]).tolist()
    return look.finding(
        "displacement",
        "Pairs that would displace the chosen response",
        share,
        f"In {percent(share.value)} of the pairs the hidden states of the rejected response are so similar "
        "to those of the chosen one that training is likely to lower both. The length-normalised CHES score "
        f"has the median {number(middle)}; nine tenths of the pairs are between {number(low)} and "
        f"{number(high)}.",
        limits=(0.1, 0.3),
        of="pairs at 0 or more (the paper compares scores and gives no threshold)",
        measures=[Measure("median CHES score, length-normalised", middle, unit="")],
        why="The higher the score (centred hidden embedding similarity), the more a loss on the difference "
        "also lowers the chosen response, and moves probability to other responses.",
        papers=("Razin et al., 2024, arXiv 2410.08847", "Pal et al., 2024, arXiv 2402.13228"),
        remedies=(
            Remedy("Keep the likelihood of the chosen response from falling.", look.commands.train("dpop")),
            Remedy(
                "Or add its likelihood to the loss.", look.commands.train("dpo", objective__plus__nll=0.2)
            ),
            Remedy(
                "Or remove these pairs.",
                look.commands.without("displacement", rows=len(look.corpus.pairs)),
            ),
        ),
        specimens=look.specimens([policy.places[policy.scored[i]] for i in worst[:2]]),
        sample=_sample(look, policy),
        rows=rows,
    )


def _on_policy(look: Look, policy: Policy) -> Finding | Unasked:
    logps = policy.on_policy
    if logps is None:
        return Unasked(
            "Distance from the model's own samples",
            "samples of an encoder–decoder come without likelihoods, or no prompt leaves room for a sample",
        )
    measures = []
    for side, theirs in (("chosen", logps.chosen), ("rejected", logps.rejected)):
        estimate = mean((logps.own - theirs).tolist())
        name = f"nats per token less likely than own samples, {side}"
        measures.append(Measure(name, estimate.value, estimate.interval, "nats", of=estimate.count))
    first = measures[0]
    level: Level = "act" if first.low > 1.5 else "look" if first.low > 0.5 else "fine"
    return Finding(
        "on_policy",
        "Responses that the model would not write",
        level,
        f"Mean log-probability in nats per token: {_mean(logps.own)} for the model's own samples, "
        f"{_mean(logps.chosen)} for the chosen and {_mean(logps.rejected)} for the rejected responses to "
        f"the same prompts (the first {logps.longest} tokens of each).",
        tuple(measures),
        stake=min(1.0, max(0.0, first.value) / 3),
        why="Lowering a response that the policy never writes costs nothing, and teaches nothing about the "
        "responses that it does write. Pairs of its own samples do.",
        papers=("Zhou et al., 2024, arXiv 2406.11827", "Yan et al., 2024, arXiv 2406.07327"),
        threshold="0.5 nats per token; to act on from 1.5",
        remedies=(
            Remedy("Weight pairs by their likelihood.", look.commands.train("wpo")),
            Remedy(
                "Or fine-tune on the chosen responses at the same time.",
                look.commands.train("dpo", objective__plus__nll=0.2),
            ),
        ),
        sample=f"On {len(logps.own):,} prompts, one sample each at temperature 1.",
    )


STAGES: Mapping[str, Callable[[Look, Policy], Finding | Unasked]] = {
    "how the model orders the pairs": _ranking,
    "pairs that the model finds equally likely": _reference_gap,
    "pairs that would displace the chosen response": _displacement,
    "samples of the model": _on_policy,
}
"""The checks that score pairs, by what they are called while they run."""


def _mean(values: NDArray[np.float64]) -> str:
    return number(float(values.mean()))


def _cost(look: Look, policy: Policy) -> Finding:
    summary, total = policy.tokens.summary, len(look.corpus.pairs)
    per_pair = summary.tokens_unique / len(policy.tokens)
    tokens = per_pair * total
    step, scoring = policy.seconds(tokens)
    saved = 1 - 1 / summary.sharing
    measures = (
        Measure("seconds per epoch", step, unit="s"),
        Measure("seconds to score the reference, once", scoring, unit="s"),
        Measure("tokens per epoch", tokens, unit=""),
        Measure("tokens saved by sharing prompts", saved),
    )
    where = "a GPU" if policy.pace.device == "cuda" else f"{torch.get_num_threads()} threads"
    return Finding(
        "cost",
        "What training will cost",
        "fine",
        f"An epoch has {number(round(tokens))} tokens, {percent(saved)} fewer than without shared prompts. "
        f"It takes about {duration(step)} on this machine ({where}), plus {duration(scoring)} once for the "
        "reference.",
        measures,
        stake=0.0,
        threshold="never",
        sample=f"Forward and backward timed on {policy.pace.tokens:,} tokens, without the optimizer, and "
        f"extrapolated from {len(policy.tokens):,} pairs.",
    )
