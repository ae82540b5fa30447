"""Pairs from tests, votes, queries, constraints, directions and attention: what the papers' sheets ask."""

from __future__ import annotations

import random
import sqlite3

import pytest
import torch
from hypothesis import given, strategies as st

from prefero.errors import PreferoError
from prefero.feedback.attention_shares import (
    centre_share,
    greedy_perplexity,
    grid_shares,
    image_shares,
    to_reject,
)
from prefero.feedback.calculator import calculated, forced_text
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
from prefero.feedback.directions import along, best_along, direction, prompt_weights
from prefero.feedback.implicit import log_ratios
from prefero.feedback.rationales import deduplicated, least_alike, right_rationales
from prefero.feedback.rubrics import Graded, mirrored_pairs
from prefero.feedback.self_consistency import Vote, pseudo_tests, vote
from prefero.feedback.sql import majority, run_query, same_rows, sql_candidates
from prefero.feedback.thresholds import pools
from prefero.feedback.unit_tests import coarse_reward, faster, pairs_by_tests, passed_share
from prefero.feedback.yes_no import expected_score
from prefero.models.arithmetic import preference_vector, with_vectors
from prefero.search.best_first import best_first, path_score, step_pairs

# Unit tests


def test_the_worst_outcome_decides_the_coarse_reward() -> None:
    assert coarse_reward(["pass", "pass", "pass", "runtime_error"]) == -0.6
    assert passed_share(["pass", "pass", "pass", "runtime_error"]) == 0.75
    assert coarse_reward(["compile_error", "pass"]) == -1
    assert coarse_reward([]) == -1


def test_two_failures_make_no_pair_nor_do_two_successes() -> None:
    assert pairs_by_tests([["fail"], ["timeout"]]) == []
    assert pairs_by_tests([["pass"], ["pass"]]) == []
    assert pairs_by_tests([["pass"], []]) == [(0, 1)]  # no test passed
    assert pairs_by_tests([["pass"], ["compile_error"]], must_compile=True) == []


def test_failing_programs_and_noise_make_no_pair() -> None:
    assert faster((1, True), (2, True)) is True
    assert faster((1, True), (2, False)) is None
    assert faster((1, True), (1, True)) is None
    assert faster((100, True), (103, True), least=0.05) is None


# Self-consistency


def test_a_vote_must_be_above_its_threshold() -> None:
    assert not vote(["a", "a", "a", "b", "c"], 0.6).kept  # exactly 0.6
    assert vote(["a", "a", "a", "b"], 0.6).pairs == [(0, 3), (1, 3), (2, 3)]
    assert vote(["a", "a"], 0.5).pairs == []
    assert vote(["b", "a"], 0.1).label == "b"


def test_an_answer_that_could_not_be_read_does_not_win_a_vote() -> None:
    """It counts among the samples, and against the answers that could."""
    found = vote([None, "", None, "a", "a"], 0.3)
    assert (found.label, found.frequency, found.agreeing, found.others) == ("a", 0.4, (3, 4), (0, 1, 2))
    assert vote([None, "", None, "a", "a"], 0.4).kept is False
    assert vote([None, " "], 0.0) == Vote(None, 0.0, False, (), ())
    with pytest.raises(PreferoError, match="needs the answers"):
        vote([])


answers = st.lists(st.lists(st.sampled_from("xyz"), min_size=3, max_size=3), min_size=2, max_size=5)


@given(answers)
def test_programs_that_crash_change_no_output_but_the_confidence(outputs: list[list[str]]) -> None:
    ran = [[True] * 3 for _ in outputs]
    alone = pseudo_tests(outputs, ran)
    crashed = pseudo_tests([*outputs, ["y"] * 3], [*ran, [False] * 3])
    assert crashed.outputs == alone.outputs
    assert crashed.confidence < alone.confidence
    assert crashed.matches[-1] == (-2, -2, -2)


@given(answers)
def test_one_case_is_plain_self_consistency(outputs: list[list[str]]) -> None:
    column = [row[:1] for row in outputs]
    found = pseudo_tests(column, [[True]] * len(column))
    assert found.pairs(margin=1) == vote([row[0] for row in column], 0.0).pairs


@given(answers, st.integers(1, 3), st.floats(0, 1))
def test_a_larger_margin_adds_no_pair(outputs: list[list[str]], margin: int, lower: float) -> None:
    found = pseudo_tests(outputs, [[True] * 3 for _ in outputs])
    assert set(found.pairs(margin + 1, lower)) <= set(found.pairs(margin, lower))


def test_cases_that_nothing_ran_on_are_left_out() -> None:
    found = pseudo_tests([["1", None], ["1", None]], [[True, False], [True, False]])
    assert (found.cases, found.outputs, found.confidence) == ((0,), ("1",), 0.5)
    empty = pseudo_tests([[""], ["1"]], [[True], [True]], skip_empty=True)
    assert empty.matches == ((-2,), (1,))


# Queries


@pytest.fixture
def database() -> sqlite3.Connection:
    found = sqlite3.connect(":memory:")
    found.executescript("CREATE TABLE t(a INTEGER, b TEXT); INSERT INTO t VALUES (1,'x'),(2,'x'),(3,'y');")
    return found


def test_results_are_equal_as_sets_multisets_or_in_order(database: sqlite3.Connection) -> None:
    plain, distinct, turned = (
        run_query(database, query)
        for query in (
            "SELECT b FROM t ORDER BY a",
            "SELECT DISTINCT b FROM t",
            "SELECT b FROM t ORDER BY a DESC",
        )
    )
    assert same_rows(plain, distinct)
    assert not same_rows(plain, distinct, "multiset")
    assert same_rows(plain, turned, "multiset")
    assert not same_rows(plain, turned, "ordered")
    assert not same_rows(None, None)


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE t",
        "DELETE FROM t",
        "INSERT INTO t VALUES (9,'z')",
        "ATTACH DATABASE '/tmp/other.db' AS other",
        "PRAGMA writable_schema = 1",
        "SELECT 1; DROP TABLE t",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "SELEC 1",
        "",
    ],
)
def test_queries_that_write_never_end_or_fail_give_nothing_and_change_nothing(
    database: sqlite3.Connection, query: str
) -> None:
    rows = run_query(database, query, steps=200_000)
    assert rows is None or rows == []
    assert run_query(database, "SELECT count(*) FROM t") == [(3,)]
    database.execute("INSERT INTO t VALUES (4,'w')")  # the owner may still write


def test_candidates_are_no_copies_of_the_gold_query(database: sqlite3.Connection) -> None:
    gold = "SELECT a FROM t WHERE a > 1"
    found = sql_candidates(database, gold, [gold, "SELECT a FROM t WHERE a >= 2", "SELECT b FROM t", "SELEC"])
    assert (found.chosen, found.rejected) == ((1,), (2, 3))
    broken = sql_candidates(database, "SELEC", [gold])
    assert (broken.chosen, broken.rejected) == ((), ())


def test_failing_queries_do_not_vote() -> None:
    assert majority([None, None, [(1,)], None]) == [2]
    assert majority([[(1,), (2,)], [(3,)], [(2,), (1,), (1,)]]) == [0, 2]
    assert majority([None, None]) == [0]


# Rationales


def test_an_overlap_of_exactly_the_threshold_is_kept() -> None:
    assert deduplicated(["a b c d e f g", "a b c d e f g h i j"], 0.7) == [
        "a b c d e f g",
        "a b c d e f g h i j",
    ]
    assert len(deduplicated(["a b c d", "a b c d e"], 0.7)) == 1
    assert right_rationales("z z", ["z z", "a"])[0] == "z z"


def test_the_pairs_kept_are_the_least_alike() -> None:
    assert [pair[1] for pair in least_alike(["a b"], ["a b c", "x", "a y"], 2)] == ["x", "a y"]
    assert least_alike(["a"], [], 3) == []


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("48/2", "24"),
        ("7/3", "2.33"),
        ("(1+2)*-1", None),
        ("1/0", None),
        ("2**99", None),
        ("a+1", None),
        ("__import__('os')", None),
        ("True+1", None),
        ("1e999", None),
        ("+2", "2"),
        ("(" * 150 + "1" + ")" * 150, None),
    ],
)
def test_only_arithmetic_is_calculated(expression: str, text: str | None) -> None:
    assert forced_text(expression) == text


def test_the_calculator_knows_the_order_of_operations() -> None:
    assert calculated("2+2*3-4/2") == 6


# Reasoning with and without a trigger


def test_the_teacher_stands_in_and_correct_answers_are_not_rejected() -> None:
    assert self_refine_pairs([True, True], [True]) == []
    assert self_refine_pairs([False], [True]) == [(("teacher", 0), ("student_cot", 0))]
    wordy = self_refine_pairs([True], [True], reject_right_direct=True)
    assert wordy == [(("student_cot", 0), ("student_direct", 0))]


# Search


def test_length_normalisation_between_its_ends() -> None:
    """With every step equally likely the sum prefers shallow nodes, the mean none."""
    assert [path_score(-1.0 * n, n, 0) for n in (1, 2, 3)] == [-1, -2, -3]
    assert [path_score(-1.0 * n, n, 1) for n in (1, 2, 3)] == [-1, -1, -1]
    gaps = [path_score(-1.0 * n, n, 0.5) - path_score(-1.0 * (n + 1), n + 1, 0.5) for n in (1, 2, 3)]
    assert gaps == sorted(gaps, reverse=True)
    assert min(gaps) > 0
    assert path_score(0.0, 0) == 0


def test_the_search_asks_no_more_than_it_is_asked() -> None:
    asked = []

    def expand(state: int) -> list[tuple[int, float]]:
        asked.append(state)
        return [(2 * state, -0.1), (2 * state + 1, -0.5)]

    nodes = list(best_first(1, expand, alpha=0.0, most=3))
    assert [node.state for node in nodes] == [1, 2, 4]
    assert asked == [1, 2]
    assert step_pairs(["ok_path", "err", "ok_dead", "err"]) == [(0, 1), (0, 3)]
    assert step_pairs(["ok_path", "err", "err"], most=1) == [(0, 1)]


# Attention


def test_even_attention_gives_even_shares() -> None:
    even = torch.ones(2, 3, 10, dtype=torch.float64)
    assert image_shares(even, [(0, 2), (2, 8)]).tolist() == [0.5, 0.5]  # means, not sums, over places
    louder = even.clone()
    louder[:, :, 8:] *= 7  # text
    assert image_shares(louder, [(0, 2), (2, 8)]).tolist() == [0.5, 0.5]
    assert grid_shares(torch.ones(4, 6), 2, 3).tolist() == pytest.approx([1 / 6] * 6)
    assert centre_share(torch.ones(24, 24), 16) == pytest.approx(16 * 16 / 24 / 24)
    with pytest.raises(PreferoError, match="do not divide"):
        grid_shares(torch.ones(5, 6), 2, 3)


def test_who_looked_at_the_image_or_is_sure_is_not_rejected() -> None:
    assert to_reject(0.7, 2.0, 0.7, inclusive=True)
    assert not to_reject(0.7, 2.0, 0.7, inclusive=False)
    assert not to_reject(1.0, 2.0, 0.7, inclusive=True)
    assert not to_reject(0.1, 1.1, 0.7, inclusive=True)
    assert greedy_perplexity([0.5, 0.5]) == pytest.approx(2)


# Scores, directions, rubrics, constraints


def test_pools_split_at_the_threshold() -> None:
    found = pools([5, 3, 2])
    assert (found.chosen, found.rejected, found.usable) == ((0, 1), (2,), True)
    assert not pools([4, 5]).usable
    assert not pools([1, 2]).usable


def test_equal_contexts_score_nothing_and_a_constant_in_both_changes_nothing() -> None:
    logps = [[-1.0, -2.0], [-0.5]]
    assert log_ratios(logps, logps) == [0, 0]
    shifted = [[value + 3 for value in row] for row in logps]
    plain = [[-2.0, -2.5], [-0.1]]
    both = [[value + 3 for value in row] for row in plain]
    assert log_ratios(shifted, both) == pytest.approx(log_ratios(logps, plain))


def test_expected_scores_stay_on_their_scale() -> None:
    assert expected_score([3, 5], [-1.0, -1.0]) == pytest.approx(4)
    assert expected_score([3, 5], [-1.0, -1.0], normalised=False) < 3


def test_directions_choose_and_are_written_down() -> None:
    assert prompt_weights(direction(-15)) == (97, -26)
    short, long = [50.0, 10.0], [50.0, 90.0]
    assert best_along([long, short], direction(-45)) == 1
    assert best_along([[10, 99], [11, 0]], direction(0)) == 1
    rewards = [[3.0, 4.0], [4.0, 1.0]]
    scaled = [[7 * r for r in one] for one in rewards]
    assert best_along(rewards, direction(20)) == best_along(scaled, direction(20))
    assert along(rewards, direction(0)) == pytest.approx([3, 4])


def test_chosen_and_rejected_are_the_same_responses() -> None:
    levels = [Graded("x", "r", str(n), f"s{n}", f"y{n}") for n in range(4)]
    pairs = mirrored_pairs(levels)
    assert len(pairs) == 4 * 3
    assert sorted(a.response for a, _ in pairs) == sorted(b.response for _, b in pairs)
    assert mirrored_pairs([levels[0], Graded("x", "other", "1", "s", "y")]) == []


def test_constraints_at_their_edges() -> None:
    assert KeywordCount("art", 2).met_by("Art in a cart")
    assert WordsBetween(2, 3).met_by("a b") and WordsBetween(2, 3).met_by("a b c")
    assert not WordsBetween(2, 3).met_by("a")
    assert Paragraphs(2).met_by("a\n\nb\n\n")
    assert Case("uppercase").met_by("A1!") and not Case("lowercase").met_by("A1!")
    assert StartsWith("well").met_by('"Well," she said')
    assert not StartsWith("well").met_by("")
    assert satisfaction([True, False]) == 0.5


def test_the_most_alike_decides_what_is_diverse() -> None:
    """A copy of a chosen one that is unlike another is admitted by the released rule alone."""
    similarity = [[1.0, 0.1, 0.99, 0.5], [0.1, 1.0, 0.1, 0.5], [0.99, 0.1, 1.0, 0.5], [0.5, 0.5, 0.5, 1.0]]
    assert diverse(similarity, 3) == [0, 1, 3]
    assert diverse(similarity, 3, by="least_alike") == [0, 1, 2]
    rng = random.Random(0)
    for _ in range(20):
        table = [[rng.random() for _ in range(5)] for _ in range(5)]
        assert len(set(diverse(table, 9))) == 5
        assert diverse(table, 2) == diverse(table, 2, by="least_alike")


# Preference vectors


def test_preference_vectors_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    base, plus, minus = ({"w": torch.randn(3, generator=generator)} for _ in range(3))
    vector = preference_vector(plus, minus)
    assert torch.equal(with_vectors(base, {"p": vector}, {"p": 0.0})["w"], base["w"])
    alone = preference_vector(plus, base)
    assert torch.allclose(with_vectors(base, {"p": alone}, {"p": 1.0})["w"], plus["w"])
    assert torch.equal(preference_vector(minus, plus)["w"], -vector["w"])
    twice = with_vectors(base, {"p": vector, "q": vector}, {"p": 1.0, "q": 1.0})
    assert torch.allclose(twice["w"], with_vectors(base, {"p": vector}, {"p": 2.0})["w"])
    with pytest.raises(PreferoError, match="'p' has no strength"):
        with_vectors(base, {"p": vector}, {})


def test_a_step_whose_log_probability_is_not_a_number_is_not_followed() -> None:
    with pytest.raises(PreferoError, match="is not a number"):
        list(best_first(0, lambda state: [(state + 1, float("nan"))], most=3))
