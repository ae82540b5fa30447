"""What the model that is to be aligned makes of the data: how it orders them, how far they are from what it
writes itself, which pairs will displace it, and what training will cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from prefero.doctor.findings import Finding, Level, Measure, Remedy, Unasked, level_of
from prefero.doctor.look import Look
from prefero.doctor.policy import Policy
from prefero.evaluate.intervals import mean
from prefero.evaluate.ranking import loss_that_orders, ordered
from prefero.report.numbers import duration, number, percent

UNCLEAR = 0.1
"""Nats per token up to which a pair's responses are nearly equally likely."""

BETA = 0.1


def check(look: Look) -> Iterator[Finding | Unasked]:
    policy = look.policy
    if policy is None or not look.corpus.pairs:
        yield Unasked("What the model makes of the data", "there are no pairs to score")
        return
    yield ranking(look, policy)
    yield reference_gap(look, policy)
    yield displacement(look, policy)
    yield on_policy(look, policy)
    yield cost(look, policy)


def sampled(look: Look, policy: Policy) -> str:
    count = len(policy.scored)
    total = len(look.corpus.pairs)
    return "" if count == total else f"On {count:,} of {total:,} pairs, drawn at random (--rows)."


def ranking(look: Look, policy: Policy) -> Finding:
    margin = policy.logps.margin()
    right, by_token = ordered(margin), ordered(policy.logps.margin(per_token=True))
    count = len(right)
    total = Measure.share("pairs that the model orders as the labels do", int(right.sum()), count)
    token = Measure.share("the same by the mean per token", int(by_token.sum()), count)
    wrong = margin[~right]
    interval = total.interval
    assert interval is not None
    level: Level = "look" if interval.high < 0.5 else "fine"
    message = (
        f"Before training the chosen response is the likelier one in {percent(total.value)} of the pairs"
    )
    message += f", per token in {percent(token.value)}."
    if len(wrong):
        middle = wrong.median()
        needed = float(loss_that_orders(middle, BETA))
        message += (
            f" Of the pairs that it orders wrong, the median stands {number(float(-middle))} nats apart: "
            f"DPO with β = {BETA} has turned it once its loss is below {number(needed)}."
        )
    return Finding(
        "reference",
        "How the model orders the pairs",
        level,
        message,
        (total, token),
        stake=max(0.0, 1 - 2 * total.value),
        why="A reference that is surely wrong has to be turned around pair by pair, and DPO mostly does not: "
        "its reward accuracy rises while the policy goes on preferring the rejected response.",
        papers=("Chen et al., 2024, arXiv 2405.19534",),
        threshold="the interval lies below 50 %",
        remedies=(
            Remedy("Let the reference count less.", look.commands.train("dpo_gamma", objective__gamma=0.5)),
            Remedy(
                "Or fine-tune on the chosen responses first, or along.",
                look.commands.train("dpo", objective__plus__nll=0.2),
            ),
        ),
        sample=sampled(look, policy),
    )


def reference_gap(look: Look, policy: Policy) -> Finding:
    gap = policy.logps.margin(per_token=True).abs()
    unclear = Measure.share(
        f"pairs less than {UNCLEAR} nats per token apart", int((gap < UNCLEAR).sum()), len(gap)
    )
    order = gap.argsort(stable=True)
    nearest = tuple(sorted(policy.places[policy.scored[i]] for i in order[: len(gap) // 2].tolist()))
    return Finding(
        "reference_gap",
        "Pairs that the model finds equally likely",
        level_of(unclear, look=0.5, act=1.1),
        f"In {percent(unclear.value)} of the pairs the two responses are nearly equally likely per token; "
        f"the median gap is {number(float(gap.median()))} nats.",
        (unclear, Measure("median gap", float(gap.median()), unit="nats per token")),
        stake=unclear.value / 2,
        why="A wide gap of the reference is taken for a sign of a clear difference in quality: trained on "
        "the 30 to 50 % of the pairs with the clearest gaps, DPO did as well or better.",
        papers=("Diwan et al., 2025, arXiv 2501.15109", "Chen et al., 2025, arXiv 2505.05465"),
        threshold="half of the pairs",
        remedies=(
            Remedy(
                "Keep the half of the pairs with the widest gaps.",
                look.commands.without("reference_gap", rows=len(look.corpus.pairs)),
            ),
        ),
        sample=sampled(look, policy),
        rows=nearest,
    )


def displacement(look: Look, policy: Policy) -> Finding:
    scores = policy.ches.normalised
    displacing = scores >= 0
    share = Measure.share("pairs with a CHES score of 0 or more", int(displacing.sum()), len(scores))
    worst = scores.argsort(descending=True, stable=True).tolist()
    rows = tuple(sorted(policy.places[policy.scored[i]] for i in worst if displacing[i]))
    low, middle, high = np.quantile(scores.numpy(), [0.05, 0.5, 0.95]).tolist()
    return Finding(
        "displacement",
        "Pairs that would lower the chosen response",
        level_of(share, look=0.1, act=0.3),
        f"In {percent(share.value)} of the pairs the rejected response's hidden states reach as far along "
        "the chosen one's as those do themselves. The length-normalised score is "
        f"{number(middle)} in the median, from {number(low)} to {number(high)} in nine tenths of the pairs.",
        (share, Measure("median CHES score, length-normalised", middle, unit="")),
        stake=share.value,
        why="The higher the score (centred hidden embedding similarity), the more a loss on the difference "
        "lowers the chosen response too, and moves probability to neither.",
        papers=("Razin et al., 2024, arXiv 2410.08847", "Pal et al., 2024, arXiv 2402.13228"),
        threshold="10 % of the pairs at 0 or more; to act on from 30 % (the paper compares scores, and gives "
        "no threshold)",
        remedies=(
            Remedy("Keep the chosen response from falling.", look.commands.train("dpop")),
            Remedy(
                "Or add its likelihood to the loss.", look.commands.train("dpo", objective__plus__nll=0.2)
            ),
            Remedy(
                "Or leave these pairs out.",
                look.commands.without("displacement", rows=len(look.corpus.pairs)),
            ),
        ),
        specimens=look.specimens([policy.places[policy.scored[i]] for i in worst[:2]]),
        sample=sampled(look, policy),
        rows=rows,
    )


def on_policy(look: Look, policy: Policy) -> Finding | Unasked:
    found = policy.on_policy
    if found is None:
        return Unasked(
            "Distance from the model's own samples",
            "an encoder–decoder's samples carry no likelihoods, or no prompt leaves room for one",
        )
    gaps = {"chosen": found.own - found.chosen, "rejected": found.own - found.rejected}
    measures = []
    for side, gap in gaps.items():
        estimate = mean(gap.tolist())
        name = f"nats per token less likely than own samples, {side}"
        measures.append(Measure(name, estimate.value, estimate.interval, "nats", of=estimate.count))
    first = measures[0]
    interval = first.interval
    assert interval is not None
    level: Level = "act" if interval.low > 1.5 else "look" if interval.low > 0.5 else "fine"
    return Finding(
        "on_policy",
        "Responses that the model would not write",
        level,
        f"The model gives its own samples {_mean(found.own)} nats per token, the chosen responses to the "
        f"same prompts {_mean(found.chosen)}, the rejected {_mean(found.rejected)} (the first "
        f"{found.longest} tokens of each).",
        tuple(measures),
        stake=min(1.0, max(0.0, first.value) / 3),
        why="On responses that the policy never writes, lowering the rejected one costs nothing and teaches "
        "nothing about what it does write; pairs of its own samples do.",
        papers=(
            "Zhou et al., 2024, arXiv 2406.11827",
            "Yan et al., 2024, arXiv 2406.07327",
        ),
        threshold="0.5 nats per token; to act on from 1.5",
        remedies=(
            Remedy("Let pairs count by how likely they are.", look.commands.train("wpo")),
            Remedy(
                "Or fine-tune on the chosen responses along.",
                look.commands.train("dpo", objective__plus__nll=0.2),
            ),
        ),
        sample=f"On {len(found.own):,} prompts, one sample each at temperature 1.",
    )


def _mean(values: NDArray[np.float64]) -> str:
    return number(float(values.mean()))


def cost(look: Look, policy: Policy) -> Finding:
    summary, total = policy.tokens.summary, len(look.corpus.pairs)
    per_pair = summary.tokens_unique / len(policy.tokens)
    tokens = per_pair * total
    step, scoring = policy.seconds(tokens)
    saved = 1 - 1 / summary.sharing
    measures = (
        Measure("seconds of an epoch", step, unit="s"),
        Measure("seconds to score the reference, once", scoring, unit="s"),
        Measure("tokens of an epoch", tokens, unit=""),
        Measure("tokens saved by sharing prompts", saved),
    )
    where = "a GPU" if policy.pace.device == "cuda" else f"{torch.get_num_threads()} threads"
    return Finding(
        "cost",
        "What training will cost",
        "fine",
        f"An epoch is {number(round(tokens))} tokens, {percent(saved)} fewer than without shared prompts: "
        f"about {duration(step)} on this machine ({where}), and {duration(scoring)} once for a reference.",
        measures,
        stake=0.0,
        threshold="never",
        sample=f"Forward and backward timed on {policy.pace.tokens:,} tokens, without the optimizer, and "
        f"extrapolated from {len(policy.tokens):,} pairs.",
    )
