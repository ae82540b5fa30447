"""A search whose proposer reads from a list, and what it finds on other data."""

from __future__ import annotations

from prefero_lab.papers.experiments.objective_search import BROKEN, DISCOVERED, ObjectiveSearch

SMALL = ObjectiveSearch(worlds=2, prompts=8, pairs=64, steps=10)


def test_everything_is_tried_and_what_is_broken_is_refused_with_a_reason():
    made = SMALL.make(0)
    for one in made:
        tried = {entry.name: entry for entry in one.entries}
        assert len(tried) == len(one.entries) and tried.keys() >= {"logistic", *DISCOVERED, *BROKEN}
        assert all(tried[name].fitness is None and tried[name].reason for name in BROKEN)
        assert all(tried[name].fitness is not None for name in ("logistic", "cell"))
    assert [one.entries for one in SMALL.make(0)] == [one.entries for one in made]


def test_the_best_is_the_best_of_its_own_data_and_is_measured_on_others():
    made = SMALL.make(0)
    found = {
        pick: SMALL.measure(made, SMALL.train(made, {"pick": pick}, 0).model, 0)
        for pick in ("best", "logistic", "discopop")
    }
    for best, known in zip(found["best"]["gain"], found["logistic"]["gain"], strict=True):
        assert best >= known
    assert found["best"]["gain"] == [
        max(entry.fitness for entry in one.entries if entry.fitness is not None) for one in made
    ]
    assert found["best"]["fresh_gain"] != found["best"]["gain"]
    assert found["logistic"] == SMALL.measure(made, SMALL.start(made), 0)


def test_no_seed_searches_on_the_fresh_data_of_another():
    seeds = {one.fitness.settings["seed"] for seed in (100, 101, 102, 109) for one in SMALL.make(seed)}
    assert len(seeds) == 8 and not seeds & {seed + 1000 for seed in seeds}
