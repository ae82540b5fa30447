from __future__ import annotations

import random
from statistics import fmean

import pytest

from prefero.data.formats import load_examples
from prefero.errors import PreferoError
from prefero_lab.worlds.instructions import INSTRUCTIONS
from prefero_lab.worlds.noisy import Flips, Groups, Labels, Panel, Row, Ties, exchanged, gap


def clean(count: int = 1500) -> list[Row]:
    """Two notes of the corpus to each prompt, the better one chosen."""
    rng = random.Random(5)
    rows = []
    for prompt in INSTRUCTIONS.draw_prompts("train", count, 5):
        texts = sorted(
            (INSTRUCTIONS.write(prompt, rng) for _ in range(2)),
            key=lambda text: INSTRUCTIONS.gold(prompt, text),
        )
        scores = [INSTRUCTIONS.gold(prompt, text) for text in texts]
        sides = {
            "rejected": texts[0],
            "chosen": texts[1],
            "rejected_score": scores[0],
            "chosen_score": scores[1],
        }
        rows.append({"prompt": prompt, **sides})
    return rows


ROWS = clean()
ALL: tuple[Labels, ...] = (
    Flips(0.2),
    Ties(0.1),
    Panel((8.0, 2.0, 0.0)),
    Groups(("stylist", "checker"), (0.8, 0.2)),
)


@pytest.mark.parametrize("labels", ALL, ids=lambda one: type(one).__name__)
def test_labels_follow_from_the_seed_and_leave_texts_and_scores_together(labels: Labels) -> None:
    before = [dict(row) for row in ROWS]
    rows = labels(INSTRUCTIONS, ROWS, 3)
    assert before == ROWS
    assert rows == labels(INSTRUCTIONS, ROWS, 3) != labels(INSTRUCTIONS, ROWS, 4)
    for row, old in zip(rows, ROWS, strict=True):
        assert row["prompt"] == old["prompt"]
        assert {row["chosen"], row["rejected"]} == {old["chosen"], old["rejected"]}
        if "group" not in row:
            assert row["chosen_score"] == INSTRUCTIONS.gold(row["prompt"], row["chosen"])


def test_flips_come_at_their_rate_and_are_told() -> None:
    rows = Flips(0.3)(INSTRUCTIONS, ROWS, 0)
    assert fmean(row["flipped"] for row in rows) == pytest.approx(0.3, abs=0.04)
    for row, old in zip(rows, ROWS, strict=True):
        assert (row["chosen"] == old["rejected"]) == (row["flipped"] or row["chosen"] == row["rejected"])
        assert row["flip_rate"] == 0.3
    assert not any(row["flipped"] for row in Flips(0.0)(INSTRUCTIONS, ROWS, 0))


def test_near_pairs_flip_more_often_at_the_same_rate() -> None:
    rows = Flips(0.2, near=0.1)(INSTRUCTIONS, ROWS, 0)
    assert fmean(row["flip_rate"] for row in rows) == pytest.approx(0.2)
    near = [row["flip_rate"] for row in rows if abs(gap(row)) < 0.05]
    far = [row["flip_rate"] for row in rows if abs(gap(row)) > 0.3]
    assert min(near) > 2 * max(far)


def test_ties_are_pairs_of_like_scores_in_either_order() -> None:
    rows = Ties(0.1)(INSTRUCTIONS, ROWS, 0)
    assert 0.1 < fmean(row["tie"] for row in rows) < 0.6
    for row in rows:
        assert row["tie"] == (abs(gap(row)) <= 0.1)
        assert row["tie"] or gap(row) > 0
    assert {gap(row) > 0 for row in rows if row["tie"] and gap(row)} == {True, False}


def test_a_panel_decides_by_majority_and_the_careful_are_right_more_often() -> None:
    rows = Panel((20.0, 2.0, 0.0))(INSTRUCTIONS, ROWS, 0)
    for row in rows:
        assert row["preference"] == pytest.approx(fmean(row["votes"])) and row["preference"] > 0.5
    told = [row for row in rows if abs(gap(row)) > 0.2]
    right = [fmean(vote == (gap(row) > 0) for row in told for vote in [row["votes"][i]]) for i in range(3)]
    assert right[0] > 0.97 > right[1] > 0.6 > right[2] > 0.4
    even = Panel((0.0, 0.0))(INSTRUCTIONS, ROWS, 0)
    assert {row["preference"] for row in even} == {0.5, 1.0}


def test_groups_label_by_their_own_taste() -> None:
    rows = Groups(("stylist", "checker"), (0.8, 0.2), scale=1e4)(INSTRUCTIONS, ROWS, 0)
    assert fmean(row["group"] for row in rows) == pytest.approx(0.2, abs=0.04)
    for row in rows:
        judge = INSTRUCTIONS.judge(("stylist", "checker")[row["group"]])
        scores = [judge(row["prompt"], row[side]) for side in ("chosen", "rejected")]
        assert scores == [row["chosen_score"], row["rejected_score"]] and scores[0] >= scores[1] - 1e-3


def test_labels_follow_one_another() -> None:
    rows = Flips(1.0)(INSTRUCTIONS, Ties(0.1)(INSTRUCTIONS, ROWS, 0), 0)
    assert all(row["tie"] or gap(row) < 0 for row in rows)


def test_all_that_is_told_of_a_side_goes_with_it() -> None:
    row = {
        "prompt": "p",
        "chosen": "a",
        "rejected": "b",
        "chosen_score": 1,
        "rejected_score": 0,
        "chosen_spans": [],
    }
    assert exchanged(row) == {
        **{"prompt": "p", "chosen": "b", "rejected": "a"},
        **{"chosen_score": 0, "rejected_score": 1, "rejected_spans": []},
    }


def test_the_columns_are_read() -> None:
    rows = [row for row in ROWS[:20] if row["chosen"] != row["rejected"]]
    for labels in ALL:
        rows = labels(INSTRUCTIONS, rows, 0)
    assert {"flip_rate", "tie", "preference", "group"} <= set(load_examples(rows)[0].columns)


@pytest.mark.parametrize(
    "wrong", [lambda: Flips(1.5), lambda: Groups(("a", "b"), (1.0,)), lambda: Groups(("a", "b"), (0.5, 0.2))]
)
def test_what_cannot_be_is_an_error(wrong) -> None:
    with pytest.raises(PreferoError):
        wrong()
