"""Evaluation: success rates, recommendation, run times, distances, fronts, contexts."""

from __future__ import annotations

import torch

from prefero.data.retrieval import bm25, in_order, mixed, softmax
from prefero.evaluate.intervals import share, shares_by
from prefero.evaluate.pareto import hypervolume, non_dominated, sparsity
from prefero.evaluate.programs import (
    FAILED,
    LabelledGraph,
    RuntimeUtility,
    edit_distance,
    efficiency_gain,
    efficiency_score,
    expected_utility,
    hoeffding,
    memory_time,
    pass_at_k,
    pass_reward,
    percentile,
    rewrite_reward,
    same_program,
)
from prefero.evaluate.ranking import context_error, reversal_accuracy
from prefero.evaluate.recommendation import (
    distinct_share,
    genre_fairness,
    hit_rate,
    mean_ndcg,
    ndcg,
    over_recommended_share,
)
from prefero.feedback.yes_no import expected_score
from tests.golden.adapters import adapter


@adapter("p111", "pass_at_k")
def pass_rates(params, inputs):
    return {"pass_at_k": [[pass_at_k(params["n"], c, k) for k in params["k"]] for c in inputs["correct"]]}


@adapter("p086", "sprec_metrics")
def recommendation(params, inputs):
    k, target = params["k"], inputs["target"]
    lists = [items[:k] for items in inputs["recommended"]]
    fairness = genre_fairness(lists, inputs["item_genres"], inputs["history_genre_distribution"])
    return {
        "gp": fairness.shares,
        "DGU": fairness.range,
        "MGU": fairness.mean,
        "DivRatio": distinct_share(lists),
        "ORRatio": over_recommended_share(lists),
        "HR": hit_rate(lists, target, k),
        "NDCG": mean_ndcg(lists, target, k),
    }


@adapter("p124", "attack_success_rate")
def attacks(params, inputs):
    topics, styles, before, after = zip(
        *inputs["records_topic_style_unsafe_before_unsafe_after"], strict=True
    )

    def by(group):
        first, second = shares_by(group, before), shares_by(group, after)
        return {name: [one.count, one.value, second[name].value] for name, one in first.items()}

    return {
        "asr": [share(before).value, share(after).value],
        "by_topic": by(topics),
        "by_style": by(styles),
        "dpo_triplet_idx": [place for place, unsafe in enumerate(before) if unsafe],
    }


@adapter("p096", "runtime_utility")
def runtimes(params, inputs):
    families = ("uniform", "exponential", "pareto", "log_laplace", "gen_log_laplace", "step")
    utility = {name: RuntimeUtility(name, params["k0"], params["a"], params["b"]) for name in families}
    programs = {"A": inputs["runtimes_A"], "B": inputs["runtimes_B"]}

    def measured(one, times):
        uncapped, capped = expected_utility(one, times), expected_utility(one, times, params["captime"])
        return {"mean_utility_uncapped": uncapped.low, "lower": capped.low, "upper": capped.high}

    return {
        "utility": {
            name: {program: measured(one, times) for program, times in programs.items()}
            for name, one in utility.items()
        },
        "mean_runtime": [sum(times) / len(times) for times in programs.values()],
        "hoeffding_halfwidth": hoeffding(params["m"], params["delta"]),
        "captime_for_tail_0.1": {name: one.time_of(0.1) for name, one in utility.items()},
    }


@adapter("p161", "efficiency_percentile")
def percentiles(params, inputs):
    humans, values = inputs["human_distribution"], inputs["values"]
    return {
        "percentile": [percentile(value, humans) for value in values],
        "benchmark_score": efficiency_score(values, inputs["passed"], humans),
    }


@adapter("p161", "memory_time_integral")
def integral(params, inputs):
    return {"trapezoid": memory_time(inputs["t"], inputs["memory"]), "peak": max(inputs["memory"])}


@adapter("p161", "afterburner_reward")
def rewrites(params, inputs):
    before, after = inputs["baseline"], inputs["current"]
    gains = {
        name: [
            efficiency_gain(old, new if passed else worst)
            for old, new, passed in zip(before[name], after[name], after["passed"], strict=True)
        ]
        for name, worst in FAILED.items()
    }
    rewards = [
        rewrite_reward(
            bool(old),
            bool(new),
            gains[asked][place],
            bool(formatted),
            improvement_weight=params["w_improvement"],
            format_weight=params["w_format"],
            efficiency_weight=params["w_efficiency"],
        )
        for place, (old, new, asked, formatted) in enumerate(
            zip(before["passed"], after["passed"], inputs["instruction"], inputs["format_ok"], strict=True)
        )
    ]
    return {
        "pass_reward": [
            pass_reward(bool(old), bool(new))
            for old, new in zip(before["passed"], after["passed"], strict=True)
        ],
        "efficiency_gain": gains,
        "improvement": [improvement for improvement, _ in rewards],
        "reward": [reward for _, reward in rewards],
    }


@adapter("p138", "ladder_graph_edits")
def ladders(params, inputs):
    gold = LabelledGraph.of(inputs["gold"]["nodes"], inputs["gold"]["edges"])
    variants = {
        name: LabelledGraph.of(one["nodes"], one["edges"]) for name, one in inputs["variants"].items()
    }
    return {
        "graph_edit_distance": {name: edit_distance(gold, one) for name, one in variants.items()},
        "program_level_match": {name: same_program(gold, one) for name, one in variants.items()},
    }


@adapter("p166", "morl_front_metrics")
def fronts(params, inputs):
    front = [inputs["returns"][place] for place in non_dominated(inputs["returns"])]
    return {
        "non_dominated": front,
        "hypervolume": hypervolume(inputs["returns"], params["reference_point"]),
        "sparsity": sparsity(front),
    }


@adapter("p119", "preference_reversal_metrics")
def reversals(params, inputs):
    found = reversal_accuracy(
        *(inputs[f"scores_{name}"] for name in ("context_a", "context_b", "no_context"))
    )
    return {
        "accuracy_a": found.under_a,
        "accuracy_b": found.under_b,
        "context_specific_accuracy": found.context_specific,
        "both_correct": found.both,
        "no_context_accuracy": found.no_context,
    }


@adapter("p119", "context_decomposition")
def decomposition(params, inputs):
    names = ("p_context", "p_context_hat", "pref_given_context", "pref_given_context_hat")
    found = context_error(*(torch.tensor(inputs[name], dtype=torch.float64) for name in names))
    return {
        "pref": found.preference,
        "pref_hat": found.estimate,
        "error": found.error,
        "context_specific_term": found.specific,
        "context_inference_term_tv": found.inference,
        "bound": found.bound,
    }


@adapter("p009", "hybrid_retrieval")
def retrieval(params, inputs):
    words = bm25(
        inputs["docs_tokens"],
        inputs["query_tokens"],
        k1=params["k1"],
        b=params["b"],
        epsilon=params["epsilon"],
    )
    dense = {int(document): score for document, score in inputs["dense_scores"].items()}
    relevant = {int(document): gain for document, gain in inputs["qrels"].items()}

    def quality(alpha):
        order = in_order(mixed(words, dense, alpha))
        return ndcg(
            [relevant.get(document, 0) for document in order], params["ndcg_k"], ideal=list(relevant.values())
        )

    grid = [place / (params["alpha_grid"] - 1) for place in range(params["alpha_grid"])]
    best = max(grid, key=quality)

    def named(scores):
        return {str(document): score for document, score in scores.items()}

    return {
        "bm25_okapi": words,
        "bm25_softmax": softmax(words),
        "dense_softmax": named(dict(zip(dense, softmax(list(dense.values())), strict=True))),
        "hybrid": named(mixed(words, dense, params["alpha"])),
        "ndcg_at_10": quality(params["alpha"]),
        "best_alpha_first_max": best,
        "best_ndcg": quality(best),
    }


@adapter("p009", "g_eval_weighted_score")
def judged(params, inputs):
    count = params["top"]
    scores, logps = inputs["score_of_token"][:count], inputs["logprob_of_token"][:count]
    return {
        "weighted_score": expected_score(scores, logps, normalised=False),
        "weighted_score_renormalised": expected_score(scores, logps),
    }
