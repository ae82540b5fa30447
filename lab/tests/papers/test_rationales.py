"""Rationales that name what decides a pair, or something else."""

from __future__ import annotations

from prefero_lab.papers.experiments.rationales import (
    RationalesExperiment,
    aspects_of,
    mentions,
    with_rationales,
)

ROW = {
    "prompt": "we tried this soup today.",
    "chosen": "the taste was rich.",
    "rejected": "the aroma felt stale.",
}


def rationale(which: str, seed: int):
    return with_rationales([ROW], which, seed).items[0].responses[-1]


def test_a_right_rationale_names_what_decides_and_a_wrong_one_does_not():
    assert aspects_of(ROW["prompt"])[0] == "taste"
    assert {rationale("right", seed).content for seed in range(8)} == {"the taste."}
    wrong = {rationale("wrong", seed).content for seed in range(30)}
    assert wrong == {"the portion.", "the texture.", "the aroma.", "the sauce."}


def test_a_rationale_answers_a_prompt_with_both_responses_in_any_order():
    """Would be one prompt if the chosen response always came first."""
    prompts = {rationale("right", seed).prompt for seed in range(20)}
    first, second = ROW["chosen"], ROW["rejected"]
    assert prompts == {f"{ROW['prompt']} {first} {second}", f"{ROW['prompt']} {second} {first}"}
    assert rationale("right", 0).role == "rationale"


def test_annotators_like_the_aspect_whatever_is_said_of_it():
    judge = RationalesExperiment().text_world.judge("topical")
    assert judge(ROW["prompt"], ROW["chosen"]) == 1.0 > judge(ROW["prompt"], ROW["rejected"]) == 0.0
    assert mentions("the taste was not rich.", "taste") == 1.0
