"""Selection of pairs by tests, votes, queries, contexts, constraints, attention."""

from __future__ import annotations

import sqlite3

import torch

from prefero.feedback.attention_shares import (
    LEAST_PERPLEXITY,
    centre_share,
    greedy_perplexity,
    grid_shares,
    image_shares,
    to_reject,
)
from prefero.feedback.calculator import forced_text
from prefero.feedback.chains import self_refine_pairs
from prefero.feedback.constraints import (
    Case,
    KeywordCount,
    Paragraphs,
    StartsWith,
    WordsBetween,
    diverse,
    satisfaction,
)
from prefero.feedback.directions import (
    along,
    best_along,
    direction,
    helpsteer_score,
    prompt_weights,
    ultrafeedback_score,
)
from prefero.feedback.implicit import log_ratios
from prefero.feedback.pairing import best_and_worst, max_min
from prefero.feedback.rationales import least_alike, right_rationales, wrong_rationales
from prefero.feedback.rubrics import Graded, mirrored_pairs
from prefero.feedback.self_consistency import by_value, pseudo_tests, vote
from prefero.feedback.sql import bytecode, majority, run_query, same_rows, sql_candidates
from prefero.feedback.thresholds import pools
from prefero.feedback.unit_tests import (
    coarse_reward,
    faster,
    pairs_by_tests,
    passed_share,
    passing_and_failing,
)
from prefero.models.arithmetic import preference_vector, with_vectors
from prefero.search.best_first import best_first, path_score, step_pairs
from tests.golden.adapters import adapter


@adapter("p002", "codellm_dpo_pairs")
def unit_tests(params, inputs):
    outcomes = inputs["test_status"]
    strict = params["rejected_must_compile"]
    chosen, rejected = passing_and_failing(outcomes, must_compile=strict)
    return {
        "pass_fraction": [passed_share(one) for one in outcomes],
        "coarse_rule_reward": [coarse_reward(one) for one in outcomes],
        "chosen_idx": chosen,
        "rejected_idx": rejected,
        "rejected_idx_if_must_compile": passing_and_failing(outcomes, must_compile=True)[1],
        "pairs": pairs_by_tests(outcomes, must_compile=strict),
    }


@adapter("p006", "self_refine_it_pairs")
def self_refine(params, inputs):
    pairs = [
        self_refine_pairs(*one) for one in zip(inputs["cot_correct"], inputs["direct_correct"], strict=True)
    ]
    return {"pairs": pairs, "n_pairs": list(map(len, pairs))}


@adapter("p066", "pfpo_multi_test_self_consistency")
def programs(params, inputs):
    ran = [[status == 0 for status in row] for row in inputs["status"]]
    found = pseudo_tests(
        inputs["outputs"], ran, fewest=params["min_success"], skip_empty=params["skip_empty"]
    )
    dropped = found.confidence < params["top_p"]
    return {
        "mean_top_frequency": found.confidence,
        "kept_cases": found.cases,
        "pseudo_outputs": found.outputs,
        "match": found.matches,
        "pass_counts": found.passed,
        "pairs": [] if dropped else found.pairs(params["margin"], params["lower"]),
        "dropped_by_confidence": dropped,
    }


@adapter("p066", "pfpo_math_self_consistency")
def answers(params, inputs):
    votes = [vote(one, params["top_p"]) for one in inputs["predictions"]]
    return {
        "per_question": [
            {
                "label": one.label,
                "frequency": one.frequency,
                "kept": one.kept,
                "pos": one.agreeing,
                "neg": one.others,
            }
            for one in votes
        ],
        "n_pairs": [len(one.pairs) for one in votes],
    }


@adapter("p066", "pfpo_process_pairs")
def prefixes(params, inputs):
    good, bad = by_value(inputs["prefix_values"], params["value_threshold"])
    return {"pos": good, "neg": bad}


@adapter("p089", "text2sql_execution_pairs")
def queries(params, inputs):
    database = sqlite3.connect(":memory:")
    database.executescript(inputs["schema_sql"])
    gold = inputs["gold_sql"]
    right = run_query(database, gold)
    results = [run_query(database, query) for query in inputs["candidates"]]
    equality = "multiset" if "multiset" in params["compare"] else "set"
    found = sql_candidates(database, gold, inputs["candidates"], equality)
    largest = majority(results)
    return {
        "execution_match_set": [int(same_rows(rows, right)) for rows in results],
        "execution_match_multiset": [int(same_rows(rows, right, "multiset")) for rows in results],
        "executable": [int(rows is not None) for rows in results],
        "same_bytecode_as_gold": [
            bytecode(database, query) == bytecode(database, gold) for query in inputs["candidates"]
        ],
        "majority_group": largest,
        "majority_first": largest[0],
        "chosen_idx": found.chosen,
        "rejected_idx": found.rejected,
    }


@adapter("p111", "dpo_st_pairs")
def rationales(params, inputs):
    right = right_rationales(inputs["gold"], inputs["positives"], params["dedup_threshold"])
    wrong = wrong_rationales(inputs["negatives"], params["dedup_threshold"])
    selected = least_alike(right, wrong, params["pairs_per_question"])
    every = least_alike(right, wrong, len(right) * len(wrong))
    return {
        "positives_dedup": right,
        "negatives_dedup": wrong,
        "all_pair_similarities_sorted": [similarity for *_, similarity in every],
        "selected_if_unique_order": [[better, worse] for better, worse, _ in selected],
        "selected_similarities": [similarity for *_, similarity in selected],
    }


@adapter("p111", "calculator_format")
def calculator(params, inputs):
    return {"forced_text": [forced_text(one) for one in inputs["expressions"]]}


@adapter("p151", "bfs_length_normalised")
def best_first_search(params, inputs):
    edges = inputs["edges_state_to_[child,logp]"]

    def order(alpha):
        nodes = best_first("root", lambda state: edges.get(state, []), alpha=alpha, most=params["expansions"])
        return [node.state for node in nodes]

    example = {"logps": [-0.1, -0.9, -0.8], "alpha": 0.5}
    score = path_score(sum(example["logps"]), len(example["logps"]), example["alpha"])
    return {
        "expansion_order": {str(alpha): order(alpha) for alpha in params["alphas"]},
        "one_score": {**example, "score": score},
    }


@adapter("p151", "bfs_prover_dpo_pairs")
def proofs(params, inputs):
    return {
        "pairs_per_state": {
            state: step_pairs(outcomes, params["max_per_state"])
            for state, outcomes in inputs["state_tactic_outcomes"]
        }
    }


@adapter("p161", "afterburner_dpo_pairs")
def fast_programs(params, inputs):
    solutions = [(value, bool(passed)) for value, passed in inputs["solutions_[value,passed]"]]
    oriented = []
    for first, second in inputs["drawn_pairs"]:
        wins = faster(solutions[first], solutions[second])
        if wins is not None:
            oriented.append([first, second] if wins else [second, first])
    return {"oriented": oriented}


def attention_of(inputs):
    return torch.tensor(inputs, dtype=torch.float64)


@adapter("p003", "mia_dpo_attention_select_sequence")
def sequence_attention(params, inputs):
    shares = image_shares(attention_of(inputs["attention"]), inputs["image_token_spans"]).tolist()
    perplexity = greedy_perplexity(inputs["max_probs"])
    return {
        "attention_ratio": shares,
        "ppl": perplexity,
        "keep_as_rejected": [
            to_reject(
                one,
                perplexity,
                params["ratio_threshold"],
                inclusive=True,
                least_perplexity=params["min_ppl"],
            )
            for one in shares
        ],
    }


@adapter("p003", "mia_dpo_attention_select_grid")
def grid_attention(params, inputs):
    shares = grid_shares(attention_of(inputs["attention_map"]), params["rows"], params["cols"]).tolist()
    return {
        "block_ratio": shares,
        "below_threshold": [
            to_reject(one, 2 * LEAST_PERPLEXITY, params["ratio_threshold"], inclusive=False) for one in shares
        ],
    }


@adapter("p003", "mia_dpo_attention_select_pip")
def inserted_attention(params, inputs):
    found = centre_share(attention_of(inputs["attention_map"]), params["center"])
    return {
        "center_ratio": found,
        "keep_as_rejected": to_reject(
            found, 2 * LEAST_PERPLEXITY, params["ratio_threshold"], inclusive=False
        ),
    }


@adapter("p007", "videosavi_self_judge_pair")
def self_judged(params, inputs):
    return {"pairs": [max_min(scores) for scores in inputs["scores"]]}


@adapter("p153", "hound_threshold_pairs")
def threshold_pairs(params, inputs):
    found = [pools(scores, params["threshold"]) for scores in inputs["scores"]]
    return {
        "per_prompt": [
            {"usable": one.usable, "chosen_pool": one.chosen, "rejected_pool": one.rejected} for one in found
        ]
    }


@adapter("p153", "implicit_reward_rerank")
def reranked(params, inputs):
    rewards = [log_ratios(*one) for one in zip(inputs["policy"], inputs["reference"], strict=True)]
    return {"reward": rewards, "selected": [best_and_worst(one)[0] for one in rewards]}


@adapter("p145", "icdpo_score")
def in_context(params, inputs):
    shown, plain = inputs["logp_demonstrations"], inputs["logp_plain"]
    scores, contrastive = log_ratios(shown, plain), log_ratios(shown, inputs["logp_negative_demonstrations"])
    likely = log_ratios(shown, [[] for _ in shown])
    return {
        "score": scores,
        "selected": best_and_worst(scores)[0],
        "score_contrastive": contrastive,
        "selected_contrastive": best_and_worst(contrastive)[0],
        "selected_icl_likelihood_only": best_and_worst(likely)[0],
    }


@adapter("p082", "preference_vector_merge")
def merged(params, inputs):
    def parameters(model):
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in model.items()}

    vectors = {
        name: preference_vector(parameters(one["plus"]), parameters(one["minus"]))
        for name, one in inputs["models"].items()
    }
    return {
        "vectors": vectors,
        "merged": with_vectors(parameters(inputs["base"]), vectors, params["eta"]),
    }


@adapter("p109", "dpa_directional_best_of_n")
def directional(params, inputs):
    directions = [direction(degrees) for degrees in params["degrees"]]
    return {
        "directions": directions,
        "prompt_weights": [prompt_weights(one) for one in directions],
        "scores": [[along(rewards, one) for one in directions] for rewards in inputs["rewards"]],
        "selected": [[best_along(rewards, one) for one in directions] for rewards in inputs["rewards"]],
    }


@adapter("p109", "dpa_score_rescale")
def rescaled(params, inputs):
    return {
        "helpsteer_0_100": [[helpsteer_score(score) for score in row] for row in inputs["helpsteer"]],
        "ultrafeedback_0_100": [ultrafeedback_score(score) for score in inputs["ultrafeedback_1_to_10"]],
    }


@adapter("p164", "cpt_pairs")
def mirrored(params, inputs):
    pairs = mirrored_pairs([Graded(**record) for record in inputs["records"]])
    return {
        "pairs": [
            {
                "system": chosen.system,
                "prompt": chosen.prompt,
                "chosen": chosen.response,
                "rejected": rejected.response,
            }
            for chosen, rejected in pairs
        ]
    }


@adapter("p005", "ultragen_diverse_select")
def diverse_attributes(params, inputs):
    similarity, count, first = inputs["cosine_similarity"], params["n"], params["seed_index"]
    return {
        "farthest_first": diverse(similarity, count, first),
        "released_code_order": diverse(similarity, count, first, by="least_alike"),
    }


@adapter("p005", "ultragen_csr_pair")
def satisfied_pair(params, inputs):
    shares = [satisfaction(one) for one in inputs["satisfied"]]
    return {"csr": shares, "pair": best_and_worst(shares)}


@adapter("p005", "ultragen_hard_checks")
def checked(params, inputs):
    kinds = {
        "keyword_count": lambda one: KeywordCount(one["token"], one["count"]),
        "paragraphs": lambda one: Paragraphs(one["count"]),
        "words_between": lambda one: WordsBetween(one["min"], one["max"]),
        "lowercase": lambda one: Case("lowercase"),
        "uppercase": lambda one: Case("uppercase"),
        "starts_with": lambda one: StartsWith(one["token"]),
    }
    return {"satisfied": [kinds[one["type"]](one).met_by(text) for text, one in inputs["cases"]]}
