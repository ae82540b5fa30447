"""Lists: more than two responses to a prompt, ranked or scored; and noise-contrastive alignment, where the
reference is the noise that good responses are told from."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.among import ListMean
from prefero.objectives.compare import Compare, Match, Objective, log_softmax_of
from prefero.objectives.contrasts import Comparisons, Each, EachOf, PerComparison, Ranking, Sets
from prefero.objectives.quantities import Column, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Real
from prefero.objectives.reductions import mean_of_means
from prefero.objectives.registry import Equal, published


@published(
    title="DPO on rankings (Plackett–Luce)",
    paper="p053",
    citation="Rafailov et al., 2023, arXiv 2305.18290, appendix on the Plackett–Luce model",
    equation="−Σ_k log [e^{r_k} / Σ_{j≥k} e^{r_j}], r = β log π/π_ref, best first",
    feedback={"lists"},
    relatives="Two responses are DPO. Responses of equal rank are not compared with each other.",
    pitfalls="Longer lists have more comparisons and so more weight: the loss of a list is their sum.",
)
def dpo_plackett_luce(beta: Positive = 0.1) -> Objective:
    """Each response of a ranking against all that are ranked after it."""
    return Compare(beta * log_ratio().sum(), Ranking("rank"))


@published(
    title="Multi-preference optimization (SWEPO)",
    paper="p032",
    citation="Gupta et al., 2024, arXiv 2412.04628",
    equation="−log [Σ_{s>s̄} w e^r / Σ_all w e^r], r = β log π/π_ref, w = exp(α |s − s̄|^p)",
    feedback={"lists", "scores"},
    relatives=(
        "α = 0 is MPO without weights; two responses are DPO for every α. α |s − s̄|^p adds to rewards of "
        "size β log π/π_ref, so scores should have unit spread. Lists with equal scores are skipped. The "
        "defaults are a suggestion, not the paper's."
    ),
    pitfalls=(
        "Scores on a wide scale drown the policy's rewards. What is above a list's mean is accepted, though "
        "all of it may be poor."
    ),
    aliases=("mpo", "w_mpo", "swepo"),
)
def mpo_set(beta: Positive = 0.1, alpha: Real = 1.0, p: NonNegative = 1.0) -> Objective:
    """The responses scored above their list's mean, as a set, against all; extreme scores count more."""
    score = Column("score")
    deviation = score - ListMean(score)
    bonus = alpha * deviation.map(lambda d: d.abs() ** p)
    return Compare(beta * log_ratio().sum() + bonus, Sets(accepted=deviation))


@published(
    title="Efficient exact optimization, scored lists",
    paper="p013",
    citation="Ji et al., 2024, arXiv 2402.00856",
    equation="KL(softmax(β_π log π/π_ref) ‖ softmax(s/β_r))",
    feedback={"lists", "scores"},
    settings={"hh": {"beta": 0.5, "beta_r": 0.5}, "imdb": {"beta": 0.1, "beta_r": 0.1}},
    relatives=(
        "The responses must be samples of the reference for the theory to hold. dpo_rw is the forward "
        "direction."
    ),
    pitfalls=(
        "Mode seeking: where the policy starts decides which of several good answers it settles on. A "
        "constant added to all scores of a prompt changes nothing, a factor does, as β_r does."
    ),
)
def exo_rw(beta: Positive = 0.5, beta_r: Positive = 0.5) -> Objective:
    """The policy's distribution over a list matched to the scores' in reverse KL: mode seeking."""
    return Match(beta * log_ratio().sum(), Column("score") / beta_r, "reverse_kl")


@published(
    title="DPO on scored lists",
    paper="p013",
    citation="Ji et al., 2024, arXiv 2402.00856 (the baseline DPO-rw)",
    equation="−Σ_i softmax(s/β_r)_i log softmax(β_π log π/π_ref)_i",
    feedback={"lists", "scores"},
    relatives="Its gradient is that of the forward KL: mode covering. All mass on one of two scores is dpo.",
    pitfalls="It spreads over every answer with a fair score, poor ones between them too.",
)
def dpo_rw(beta: Positive = 0.5, beta_r: Positive = 0.5) -> Objective:
    """The policy's distribution over a list fitted to the scores' by cross-entropy."""
    return Match(beta * log_ratio().sum(), Column("score") / beta_r, "cross_entropy")


NOISE_CONTRASTIVE = "Chen et al., 2024, arXiv 2402.05369"
SAMPLES = "The responses should be samples of the reference: the theory takes them for the noise."


@published(
    title="InfoNCA: noise-contrastive alignment by a softmax",
    citation=NOISE_CONTRASTIVE,
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
    citation=NOISE_CONTRASTIVE,
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
    """Every response of a list on its own: good by its share of the scores, noise by an equal share."""
    reward = beta * log_ratio().sum()
    good = Compare(reward, Each(), weight=share_of_scores(alpha))
    return good + Compare(reward, Each(sign=-1), reduce=mean_of_means)


def share_of_scores(alpha: float) -> PerComparison:
    """softmax(s/α) over the responses that an example has."""
    score = Column("score")

    def share(comparisons: Comparisons) -> Float[Tensor, "example response"]:
        return log_softmax_of(comparisons.total(score) / alpha, comparisons.mask).exp()

    return share


@published(
    title="NCA, pairs",
    citation=NOISE_CONTRASTIVE,
    equation="−log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l), r = β log π/π_ref",
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
