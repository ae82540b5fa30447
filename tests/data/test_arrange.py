"""One data set, several readings: pairs, labelled responses, ranked lists; what is missing is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from prefero.data.arrange import arrange
from prefero.data.examples import Examples
from prefero.data.formats import load_examples
from prefero.data.schema import GIVEN, SCHEMA
from prefero.errors import PreferoError

PAIR = ("chosen", "rejected")
PAIRS = [{"prompt": "p", "chosen": "good", "rejected": "bad", "chosen_score": 2, "rejected_score": 1}]
BARE = [{"prompt": "p", "chosen": "good", "rejected": "bad"}]
LIST = [{"prompt": "p", "responses": ["mid", "best", "worst", "best too"], "scores": [2, 3, 1, 3]}]
VOTES = {"instruction": "i", "response1": "a", "response2": "b"}
TIED = [
    {**VOTES, "annotator1": 0, "annotator2": 0, "annotator3": 1},
    {**VOTES, "annotator1": 1, "annotator2": 1, "annotator3": 2},
]
SOLVED = [
    {"question": "q", "a": {"is_correct": False, "solution": "5"}, "b": {"is_correct": True, "solution": "4"}}
]


def read(rows: list[dict[str, Any]], roles: tuple[str, ...], *columns: str) -> Examples:
    return arrange(load_examples(rows), roles, columns)


def contents(examples: Examples) -> list[list[Any]]:
    return [[response.content for response in example.responses] for example in examples]


def column(examples: Examples, name: str) -> list[Any]:
    return [[response.columns[name] for response in example.responses] for example in examples]


def test_a_list_gives_its_best_and_its_worst() -> None:
    examples = read(LIST, PAIR, "score", "label", "rank", "tie")
    assert contents(examples) == [["best", "worst"]]
    assert examples[0].roles == PAIR
    assert column(examples, "score") == [[3.0, 1.0]]
    assert column(examples, "label") == [[1.0, -1.0]]
    assert column(examples, "rank") == [[0, 1]]
    assert examples[0].columns["tie"] is False


def test_a_list_keeps_its_order_and_gets_places() -> None:
    examples = read(LIST, (), "rank")
    assert contents(examples) == [["mid", "best", "worst", "best too"]]
    assert column(examples, "rank") == [[2, 0, 3, 0]]


def test_pairs_are_labelled_and_ranked() -> None:
    examples = read(BARE, (), "label", "rank")
    assert contents(examples) == [["good", "bad"]]
    assert column(examples, "label") == [[1.0, -1.0]]
    assert column(examples, "rank") == [[0, 1]]


def test_roles_decide_the_order() -> None:
    assert contents(read(BARE, ("rejected", "chosen"))) == [["bad", "good"]]
    assert contents(read(BARE, ("chosen",))) == [["good"]]


def test_marked_solutions_give_pairs_and_labels() -> None:
    assert contents(read(SOLVED, PAIR)) == [["4", "5"]]
    assert column(read(SOLVED, (), "label"), "label") == [[-1.0, 1.0]]
    assert column(read(SOLVED, (), "rank"), "rank") == [[1, 0]]


def test_given_ranks_are_kept() -> None:
    rows = [{"prompt": "p", "responses": ["a", "b", "c"], "ranks": [2, 0, 1]}]
    assert column(read(rows, (), "rank"), "rank") == [[2, 0, 1]]
    assert contents(read(rows, PAIR)) == [["b", "a"]]


def test_ties_stay_only_where_they_are_asked_for() -> None:
    plain = read(TIED, PAIR)
    assert (len(plain), plain.dropped) == (1, {"ties": 1})
    asked = read(TIED, PAIR, "tie")
    assert [example.columns["tie"] for example in asked] == [True, False]
    assert asked.dropped == {}
    assert len(read(TIED, PAIR, "preference")) == 2


def test_equally_good_lists_prefer_nothing() -> None:
    rows = [*LIST, {"prompt": "q", "responses": ["a", "b"], "scores": [1, 1]}]
    assert read(rows, PAIR).dropped == {"equally good responses": 1}
    assert [example.columns["tie"] for example in read(rows, PAIR, "tie")] == [False, True]
    assert len(read(rows, (), "rank")) == 2


def test_a_pair_that_the_data_name_is_taken_at_its_word() -> None:
    rows = [{**PAIRS[0], "rejected_score": 2}]
    assert contents(read(rows, PAIR)) == [["good", "bad"]]
    assert read(rows, PAIR, "tie")[0].columns["tie"] is True


def test_scores_that_contradict_a_pair_are_noted() -> None:
    row = {"prompt": "p", "chosen": "good", "rejected": "bad"}
    rows = [
        {**row, "chosen_score": 1, "rejected_score": 9},
        {**row, "chosen_score": 9, "rejected_score": 1},
        row,
    ]
    told = "the rejected response has the higher score, and is rejected all the same"
    assert [example.notes for example in read(rows, PAIR)] == [(told,), (), ()]
    assert contents(read(rows[:1], PAIR)) == [["good", "bad"]]
    assert all(told not in example.notes for example in read([*LIST], PAIR))


def test_drawn_columns_are_not_looked_for() -> None:
    drawn = sorted(SCHEMA.keys() - GIVEN.keys())
    assert drawn
    assert contents(read(BARE, PAIR, *drawn)) == [["good", "bad"]]


@pytest.mark.parametrize("roles", [PAIR, ()])
@pytest.mark.parametrize("rows", [PAIRS, LIST, SOLVED, TIED])
def test_arranging_twice_changes_nothing(rows: list[dict[str, Any]], roles: tuple[str, ...]) -> None:
    once = read(rows, roles, "label") if rows is not LIST or roles else read(rows, roles, "rank")
    names = {name for response in once[0].responses for name in response.columns}
    assert arrange(once, roles, names) == once


@pytest.mark.parametrize("name", list(GIVEN))
def test_a_missing_column_is_explained(name: str) -> None:
    rows = BARE if name not in ("label", "rank") else [{"prompt": "p", "responses": ["a", "b"]}]
    with pytest.raises(PreferoError) as caught:
        arrange(load_examples(rows), (), {name}, for_method="some")
    message = str(caught.value)
    spec = SCHEMA[name]
    assert message.startswith(
        f"method 'some' needs the column {name!r} ({spec.meaning}), and rows, row 1 does"
    )
    assert ", ".join(spec.fields) in message
    assert spec.sample in message
    assert "trained" not in message  # a preview says the same


@pytest.mark.parametrize("name", list(GIVEN))
def test_the_sample_that_an_error_shows_would_fill_the_column(name: str) -> None:
    import ast

    sample = SCHEMA[name].sample.replace("…", '"text"').replace("true", "True").replace("false", "False")
    for word in ("a", "b", "c"):
        sample = sample.replace(f"[{word},", f'["{word}",').replace(f" {word},", f' "{word}",')
    row = ast.literal_eval(sample.replace(" c]", ' "c"]'))
    if "rejected" in row:
        row["rejected"] = "another text"
    arrange(load_examples([row]), (), {name})


def test_missing_responses_are_explained() -> None:
    labelled = [{"prompt": "p", "completion": "a", "label": True}]
    with pytest.raises(PreferoError, match=r"rows, row 1: method 'dpo' needs the chosen and rejected.*'kto'"):
        arrange(load_examples(labelled), PAIR, for_method="dpo")
    unscored = [{"prompt": "p", "responses": ["a", "b"]}]
    with pytest.raises(PreferoError, match="2 responses that nothing tells apart: give them scores"):
        arrange(load_examples(unscored), PAIR)
    with pytest.raises(
        PreferoError,
        match=r"needs another response, in the field 'gold' \(a response better than both.*\"gold\": …",
    ):
        arrange(load_examples(BARE), ("gold", "rejected"))
    with pytest.raises(PreferoError, match="unknown column 'scor'; did you mean 'score'"):
        arrange(load_examples(BARE), PAIR, {"scor"})


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(PreferoError, match="rows: no example is left for the objective: ties: 1"):
        read(TIED[:1], PAIR)


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=8))
def test_places_follow_scores(scores: list[int]) -> None:
    rows = [{"prompt": "p", "responses": [f"r{n}" for n in range(len(scores))], "scores": scores}]
    (ranks,) = column(read(rows, (), "rank"), "rank")
    for one, rank in zip(scores, ranks, strict=True):
        for other, place in zip(scores, ranks, strict=True):
            assert (one > other) == (rank < place)
    if len(set(scores)) > 1:
        pair = read(rows, PAIR, "score")
        assert column(pair, "score") == [[max(scores), min(scores)]]
