"""Noise-contrastive alignment: the reference is the noise that good responses are told from."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Match, Objective, log_softmax_of
from prefero.objectives.contrasts import Comparisons, Each, EachOf
from prefero.objectives.quantities import Column, log_ratio
from prefero.objectives.ranges import Positive
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import Equal, published

CITATION = "Chen et al., 2024, arXiv 2402.05369"
SAMPLES = "The responses should be samples of the reference: the theory takes them for the noise."


@published(
    title="InfoNCA: noise-contrastive alignment by a softmax",
    citation=CITATION,
    equation="−Σ_i softmax(s/α)_i log softmax(r)_i, r = β log π/π_ref",
    feedback={"lists", "scores"},
    settings={"mistral-7b": {"beta": 0.01, "alpha": 0.01}},
    relatives=(
        "Two responses and α → 0 are dpo, and for any list it is dpo_rw with β_r = α. Only rewards relative "
        "to the list's count; nca also holds each on its own. " + SAMPLES
    ),
    equals=(Equal("dpo_rw", at={"alpha": 0.3, "beta": 0.2}, given={"beta_r": 0.3}),),
    pitfalls="α is in units of the score: at 0.01 a list of scores from 1 to 10 is as good as one-hot.",
)
def infonca(beta: Positive = 0.01, alpha: Positive = 0.01) -> Objective:
    """The policy's distribution over a list fitted to the scores' by cross-entropy."""
    return Match(beta * log_ratio().sum(), Column("score") / alpha, "cross_entropy")


@published(
    title="NCA: noise-contrastive alignment",
    citation=CITATION,
    equation="−Σ_i [softmax(s/α)_i log σ(r_i) + 1/K log σ(−r_i)], r = β log π/π_ref",
    feedback={"lists", "scores"},
    settings={"mistral-7b": {"beta": 0.01, "alpha": 0.01}},
    relatives=(
        "Two responses and α → 0 are nca_pair. infonca lets every likelihood of a list fall together, and "
        "this does not. " + SAMPLES
    ),
    pitfalls="α is in units of the score: at 0.01 a list of scores from 1 to 10 is as good as one-hot.",
)
def nca(beta: Positive = 0.01, alpha: Positive = 0.01) -> Objective:
    """Every response of a list classified on its own, as a good one by its share of the scores and as noise
    by an equal share."""
    reward = beta * log_ratio().sum()
    good = Compare(reward, Each(), weight=share_of_scores(alpha))
    return good + Compare(reward, Each(sign=-1), reduce=mean_of_means)


def share_of_scores(alpha: float) -> Callable[[Comparisons], Float[Tensor, "example response"]]:
    """softmax(s/α) over the responses that an example has."""
    score = Column("score")

    def share(comparisons: Comparisons) -> Float[Tensor, "example response"]:
        return log_softmax_of(comparisons.total(score) / alpha, comparisons.mask).exp()

    return share


@published(
    title="NCA, pairs",
    citation=CITATION,
    equation="−log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l), r = β log π/π_ref",
    feedback={"pairs"},
    settings={"mistral-7b": {"beta": 0.01}},
    relatives=(
        "As TRL's nca_pair. bco_pair lacks the middle term, so nothing there keeps the chosen response's "
        "reward from growing: here its optimum, alone, is log 2."
    ),
)
def nca_pair(beta: Positive = 0.01) -> Objective:
    """Chosen responses become likelier than under the reference, within bounds, and rejected ones less so."""
    reward = beta * log_ratio().sum()
    noise = Compare(-reward, EachOf("chosen", "rejected"), reduce=mean_of_means)
    return Compare(reward, Each("chosen")) + noise
