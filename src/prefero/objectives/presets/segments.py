"""Parts of a response: only some of them are rewarded, or each of them has a score or weight of its own."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Comparisons, PerComparison
from prefero.objectives.quantities import Column, Measured, Quantity, log_ratio
from prefero.objectives.ranges import NonNegative, Positive, Share
from prefero.objectives.registry import Equal, published
from prefero.objectives.segments import InSegment, SegmentPairs, SegmentSum
from prefero.objectives.signals import forward_kl


@published(
    title="Segment-level DPO for dialogues",
    paper="p050",
    citation="Kong et al., 2025, arXiv 2501.01821",
    equation="−log σ(β Σ_{t in the key segment} [Δ_t of y_w − Δ_t of y_l]), Δ = log π/π_ref",
    feedback={"pairs", "spans"},
    settings={"default": {"beta": 0.1, "learning_rate": 5e-7}},
    relatives=(
        "The column `segment` numbers the turns of the key segment and is 0 elsewhere: the history before it,"
        " which both sides share, and the turns after it. With all turns in it this is dpo on the agent's "
        "tokens, with one it is DPO of a turn. sdpo (stepwise DPO with a moving reference) is another method."
    ),
    pitfalls=(
        "Both sides need as many turns, or the partition functions do not cancel: "
        "prefero.feedback.segments.key_segment builds such pairs and refuses others."
    ),
)
def sdpo_segment(beta: Positive = 0.1) -> Objective:
    """DPO on the turns of a dialogue that decided how it went, as many on either side."""
    return Compare(beta * (InSegment() * log_ratio()).sum())


@published(
    title="RRPO: refined regularised preference optimization",
    paper="p001",
    citation="Sarkar and Etemad, 2025, arXiv 2504.12083",
    equation=(
        "−log σ(β [Σ_{t in key phrases of y_w} Δ_t − Σ_{t in key phrases of y_l} Δ_t]) "
        "+ α Σ_{t∈y_w} KL(π_ref ‖ π), Δ = log π/π_ref"
    ),
    feedback={"pairs", "spans"},
    settings={"default": {"beta": 0.1, "alpha": 0.01}},
    relatives=(
        "The ranking part at α = 0 is that of sdpo_segment. The KL is over the full vocabulary, the reference"
        " first, at every token of the chosen response and of no other; α is outside the sigmoid. Key phrases"
        " are marked by `segment` above 0, whichever number. Other base models of the paper took β = 0.5 with"
        " α = 0.05, and β = 0.9 with α = 0.01."
    ),
    equals=(Equal("sdpo_segment", at={"alpha": 0.0}),),
    pitfalls=(
        "A response whose key phrases were cut off trains by the KL alone. Data without marked phrases can "
        "take prefero.data.spans.mark_differences: the words in which the two responses differ."
    ),
)
def rrpo(beta: Positive = 0.1, alpha: NonNegative = 0.01) -> Objective:
    """Only the phrases in which the responses differ are ranked; the rest of the policy is held in place."""
    ranking = Compare(beta * (InSegment() * log_ratio()).sum())
    return ranking + alpha * penalty(Measured(forward_kl()).sum(), "chosen")


SEGMENT_SCORES = (
    "The column `segment` numbers the segments, `token_score` has the score of each at its tokens, higher is "
    "better: a weighted mean of its aspects. prefero.feedback.segment_scores cuts responses into segments."
)


@published(
    title="2D-DPO: segments and aspects",
    paper="p087",
    citation="Li et al., 2024, arXiv 2410.19720",
    equation=(
        "Σ_{k≤n} −log σ(β s_{w,k} S_{w,k} − β s_{l,k} S_{l,k}), S: the log-ratio summed over a segment, "
        "s: its score; chosen segments by falling score, rejected ones by rising score"
    ),
    feedback={"pairs", "spans"},
    aliases=("2d_dpo",),
    settings={"default": {"beta": 0.1}},
    relatives=(
        "A sum, not a mean, over the n pairs of segments, n the smaller number of the two. " + SEGMENT_SCORES
    ),
    pitfalls=(
        "Scores scale like β. A rejected segment of score 0 is not pushed at all, one of negative score is "
        "pushed up, and segments beyond the n-th have no gradient. The public code cuts prompt and response "
        "into segments and pads their number over the batch; here they belong to the response alone."
    ),
)
def two_d_dpo(beta: Positive = 0.1) -> Objective:
    """The best segments of the chosen response against the worst of the rejected one, by their scores."""
    score = Column("token_score")
    return Compare(beta * log_ratio(), SegmentPairs(score, score))


def worst_case(reward: Quantity, epsilon: float) -> PerComparison:
    """ε (|S_w| + |S_l|), as a target: what scores that are off by ``epsilon`` at most take from a margin."""

    def target(comparisons: Comparisons) -> Float[Tensor, "example comparison"]:
        contrast = comparisons.contrast
        assert isinstance(contrast, SegmentPairs)
        better, worse = contrast.paired(SegmentSum(reward), comparisons.batch)
        return epsilon * (better.abs() + worse.abs())

    return target


@published(
    title="Robust 2D-DPO",
    paper="p087",
    citation="Shashidhar et al., 2025, arXiv 2505.01706",
    equation="Σ_k −log σ(β s_{w,k} S_{w,k} − β s_{l,k} S_{l,k} − β ε (|S_{w,k}| + |S_{l,k}|))",
    feedback={"pairs", "spans"},
    settings={"default": {"beta": 0.1}},
    relatives=(
        "An interpretation: the public code has no robust loss. worst_case bounds the loss over all scores "
        "within ε of the given ones; expectation draws uniform errors within ±ε for every segment, anew for "
        "every step, without changing which segments meet. ε has no published default. " + SEGMENT_SCORES
    ),
    equals=(Equal("two_d_dpo", at={"epsilon": 0.0}),),
    pitfalls=(
        "Where ε exceeds a segment's score the worst case pushes its log-ratio towards 0 whichever way the "
        "scores point."
    ),
)
def robust_two_d_dpo(
    beta: Positive = 0.1,
    epsilon: NonNegative = 0.3,
    robust: Literal["worst_case", "expectation"] = "worst_case",
) -> Objective:
    """2D-DPO under scores that may be wrong."""
    score, reward = Column("token_score"), beta * log_ratio()
    if robust == "expectation":
        error = epsilon * (2 * Column("noise") - 1)
        return Compare(reward, SegmentPairs(score, score + error))
    return Compare(reward, SegmentPairs(score, score), target=worst_case(reward, epsilon))


@published(
    title="Relevance-weighted DPO",
    paper="p137",
    citation="Banerjee et al., 2024, arXiv 2406.06496",
    equation="−log σ(β Σ_t w_t Δ_t^w − β Σ_t w_t Δ_t^l), w_t = 1 at relevant tokens, γ at others",
    feedback={"pairs", "spans"},
    settings={"default": {"beta": 0.1}},
    relatives=(
        "The chosen response is the rejected one, edited as little as the unwanted behaviour allows; tokens "
        "that belong to the behaviour are marked by segment above 0. Sums, not means. The paper tries γ = 0 "
        "and ½ among others."
    ),
    pitfalls=(
        "Where lines were only deleted the chosen response has no relevant token: at γ = 0 its reward is 0 "
        "and the rejected part is pushed down alone. Such pairs belong to the data. What both texts share "
        "after the first edit does not cancel, because its context differs."
    ),
    equals=(Equal("dpo", at={"gamma": 1.0}), Equal("sdpo_segment", at={"gamma": 0.0})),
)
def relevance_weighted_dpo(beta: Positive = 0.1, gamma: Share = 0.5) -> Objective:
    """DPO that switches off one behaviour and leaves alone, as far as γ is small, what is unrelated to it."""
    weight = gamma + (1 - gamma) * InSegment()
    return Compare(beta * (weight * log_ratio()).sum())
