"""Measurements of models and judges, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.evaluate.divergence import (
        divergence as divergence,
    )
    from prefero.evaluate.divergence import (
        divergences as divergences,
    )
    from prefero.evaluate.divergence import (
        sampled_divergence as sampled_divergence,
    )
    from prefero.evaluate.diversity import (
        compression_ratio as compression_ratio,
    )
    from prefero.evaluate.diversity import (
        distinct as distinct,
    )
    from prefero.evaluate.diversity import (
        expectation_adjusted_distinct as expectation_adjusted_distinct,
    )
    from prefero.evaluate.diversity import (
        mean_distance as mean_distance,
    )
    from prefero.evaluate.diversity import (
        ngram_entropy as ngram_entropy,
    )
    from prefero.evaluate.diversity import (
        self_bleu as self_bleu,
    )
    from prefero.evaluate.intervals import (
        Interval as Interval,
    )
    from prefero.evaluate.intervals import (
        Mean as Mean,
    )
    from prefero.evaluate.intervals import (
        bootstrap as bootstrap,
    )
    from prefero.evaluate.intervals import (
        mean as mean,
    )
    from prefero.evaluate.intervals import (
        wilson as wilson,
    )
    from prefero.evaluate.judgements import (
        Judgement as Judgement,
    )
    from prefero.evaluate.judgements import (
        by_model as by_model,
    )
    from prefero.evaluate.judgements import (
        read_judgements as read_judgements,
    )
    from prefero.evaluate.judgements import (
        summary as summary,
    )
    from prefero.evaluate.judges import (
        LearnedReward as LearnedReward,
    )
    from prefero.evaluate.judges import (
        RewardModel as RewardModel,
    )
    from prefero.evaluate.judges import (
        judge_named as judge_named,
    )
    from prefero.evaluate.judges import (
        rewards as rewards,
    )
    from prefero.evaluate.judges import (
        values as values,
    )
    from prefero.evaluate.length_control import (
        LengthControlled as LengthControlled,
    )
    from prefero.evaluate.length_control import (
        length_controlled_win_rate as length_controlled_win_rate,
    )
    from prefero.evaluate.policies import (
        Evaluation as Evaluation,
    )
    from prefero.evaluate.policies import (
        Prompt as Prompt,
    )
    from prefero.evaluate.policies import (
        Sampling as Sampling,
    )
    from prefero.evaluate.policies import (
        evaluate as evaluate,
    )
    from prefero.evaluate.policies import (
        read_prompts as read_prompts,
    )
    from prefero.evaluate.ranking import (
        RankingAccuracy as RankingAccuracy,
    )
    from prefero.evaluate.ranking import (
        pair_logps as pair_logps,
    )
    from prefero.evaluate.ranking import (
        policy_ranking as policy_ranking,
    )
    from prefero.evaluate.ranking import (
        ranking_accuracy as ranking_accuracy,
    )
    from prefero.evaluate.win_rate import WinRate as WinRate
    from prefero.evaluate.win_rate import place_bias as place_bias
    from prefero.evaluate.win_rate import win_rate as win_rate

__getattr__, __dir__, __all__ = lazily(__name__)
