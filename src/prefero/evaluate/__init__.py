"""Measurements of models and judges, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.evaluate.calibration import (
        Bin as Bin,
        Calibration as Calibration,
        calibration as calibration,
        pair_calibration as pair_calibration,
    )
    from prefero.evaluate.difficulties import (
        Difficulties as Difficulties,
        fit_difficulties as fit_difficulties,
        read_difficulties as read_difficulties,
    )
    from prefero.evaluate.divergence import (
        divergence as divergence,
        divergences as divergences,
        sampled_divergence as sampled_divergence,
    )
    from prefero.evaluate.diversity import (
        compression_ratio as compression_ratio,
        distinct as distinct,
        expectation_adjusted_distinct as expectation_adjusted_distinct,
        mean_distance as mean_distance,
        ngram_entropy as ngram_entropy,
        self_bleu as self_bleu,
    )
    from prefero.evaluate.intervals import (
        Interval as Interval,
        Mean as Mean,
        bootstrap as bootstrap,
        mean as mean,
        wilson as wilson,
    )
    from prefero.evaluate.judgements import (
        Judgement as Judgement,
        by_model as by_model,
        read_all_judgements as read_all_judgements,
        read_judgements as read_judgements,
    )
    from prefero.evaluate.judges import (
        LearnedPreference as LearnedPreference,
        LearnedReward as LearnedReward,
        RewardModel as RewardModel,
        ScoringJudge as ScoringJudge,
        judge_named as judge_named,
        rewards as rewards,
        values as values,
    )
    from prefero.evaluate.length_control import (
        LengthControlled as LengthControlled,
        length_controlled_win_rate as length_controlled_win_rate,
    )
    from prefero.evaluate.pareto import (
        Dominated as Dominated,
        FrontierPoint as FrontierPoint,
        dominated as dominated,
        dominates as dominates,
        frontier as frontier,
        hypervolume as hypervolume,
        non_dominated as non_dominated,
        sparsity as sparsity,
    )
    from prefero.evaluate.policies import (
        Evaluation as Evaluation,
        Prompt as Prompt,
        Sampling as Sampling,
        evaluate as evaluate,
        read_prompts as read_prompts,
    )
    from prefero.evaluate.programs import (
        ExpectedUtility as ExpectedUtility,
        LabelledGraph as LabelledGraph,
        RuntimeUtility as RuntimeUtility,
        all_pass_at_k as all_pass_at_k,
        edit_distance as edit_distance,
        efficiency_gain as efficiency_gain,
        efficiency_score as efficiency_score,
        expected_utility as expected_utility,
        hoeffding as hoeffding,
        memory_time as memory_time,
        pass_at_k as pass_at_k,
        pass_rate as pass_rate,
        same_program as same_program,
    )
    from prefero.evaluate.ranking import (
        RankingAccuracy as RankingAccuracy,
        pair_logps as pair_logps,
        policy_ranking as policy_ranking,
        ranking_accuracy as ranking_accuracy,
    )
    from prefero.evaluate.recommendation import (
        GenreFairness as GenreFairness,
        distinct_share as distinct_share,
        genre_fairness as genre_fairness,
        genre_shares as genre_shares,
        hit_rate as hit_rate,
        mean_ndcg as mean_ndcg,
        ndcg as ndcg,
        over_recommended_share as over_recommended_share,
    )
    from prefero.evaluate.summaries import (
        summaries as summaries,
        summary as summary,
    )
    from prefero.evaluate.win_rate import (
        BothOrders as BothOrders,
        WinRate as WinRate,
        place_bias as place_bias,
        win_rate as win_rate,
    )

__getattr__, __dir__, __all__ = lazily(__name__)
