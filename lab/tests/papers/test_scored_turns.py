"""The experiment on talks whose turns are scored: what stands where in its rows."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest

from lab.tests.worlds.test_bargaining import DEAL, PROMPT
from prefero.data.formats import load_examples
from prefero_lab.papers.experiments.scored_turns import Made, ScoredTurnsExperiment, scored_row, scores
from prefero_lab.worlds.bargaining import Session

BETTER, WORSE = (Session.read(PROMPT, text) for text in (DEAL, DEAL.replace("shade", "seat")))


def test_turns_score_by_what_they_are_worth() -> None:
    assert scores(BETTER) == [3, 3, 3, 3, 2, 2, 2] and scores(WORSE) == [3, 1, 3, 3, 2, 2, 2]


def test_an_annotator_changes_scores_and_neither_texts_nor_places() -> None:
    right = scored_row(BETTER, WORSE, list)
    wrong = scored_row(BETTER, WORSE, lambda given: [4 - one for one in given])
    for side in ("chosen", "rejected"):
        assert right[side] == wrong[side]
        both = zip(right[f"{side}_spans"], wrong[f"{side}_spans"], strict=True)
        for one, other in both:
            assert {**one, "score": None} == {**other, "score": None} and one["score"] + other["score"] == 4
    assert [span["segment"] for span in right["rejected_spans"]] == list(range(1, 8))
    assert load_examples([right])[0].responses[0].spans


class Exchanged(ScoredTurnsExperiment):
    """With the worse session chosen."""

    def make(self, seed: int) -> Made:
        made = super().make(seed)

        def turned(row: dict[str, Any]) -> dict[str, Any]:
            names = {"chosen": "rejected", "rejected": "chosen"}
            names |= {f"{one}_spans": f"{other}_spans" for one, other in names.items()}
            return {names.get(name, name): value for name, value in row.items()}

        return Made(
            made.start, *([turned(row) for row in rows] for rows in (made.right, made.wrong)), made.rows
        )


@pytest.mark.slow
def test_dpo_orders_new_pairs_and_with_the_sides_exchanged_the_other_way_round() -> None:
    settings = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-3}
    found = []
    for experiment in (ScoredTurnsExperiment(talks=50), Exchanged(talks=50)):
        made = experiment.make(0)
        model = experiment.train(made, settings, 0).model
        found.append(fmean(experiment.measure(made, model, 0)["accuracy"]))
    assert found[0] > 0.7 and found[1] < 0.3
