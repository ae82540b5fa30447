"""Measures of the application papers: what their sheets ask of them."""

from __future__ import annotations

import math
import random
import time
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from prefero.data.retrieval import bm25, in_order, mixed
from prefero.errors import PreferoError
from prefero.evaluate.intervals import share, shares_by
from prefero.evaluate.programs import (
    LabelledGraph,
    RuntimeUtility,
    edit_distance,
    efficiency_gain,
    efficiency_score,
    expected_utility,
    memory_time,
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

FAMILIES = ("uniform", "exponential", "pareto", "log_laplace", "gen_log_laplace", "step")


# Run times


@pytest.mark.parametrize("family", FAMILIES)
@given(st.floats(0.01, 100), st.floats(0.2, 5), st.floats(0.2, 5), st.floats(0, 1e4), st.floats(0, 1e4))
def test_utility_falls_from_one_towards_zero(
    family: str, k0: float, a: float, b: float, first: float, second: float
) -> None:
    utility = RuntimeUtility(family, k0, a, b)
    early, late = sorted((first, second))
    assert utility(0) == 1
    assert 1 >= utility(early) >= utility(late) >= 0
    if family != "step":
        assert utility(k0 * (1 - 1e-9)) == pytest.approx(utility(k0 * (1 + 1e-9)), abs=1e-6)


@pytest.mark.parametrize("family", [one for one in FAMILIES if one != "step"])
@given(st.floats(0.001, 0.999))
def test_the_time_of_a_utility_is_its_inverse(family: str, level: float) -> None:
    utility = RuntimeUtility(family, 60, 1.5, 2.0)
    assert utility(utility.time_of(level)) == pytest.approx(level)


def test_the_families_meet_where_they_should() -> None:
    general, plain = RuntimeUtility("gen_log_laplace", 9, 1.3, 1.3), RuntimeUtility("log_laplace", 9, 1.3)
    assert [general(t) for t in (1, 9, 30)] == pytest.approx([plain(t) for t in (1, 9, 30)])
    assert plain(9) == 0.5  # Pareto is still 1 there
    assert RuntimeUtility("pareto", 9)(9) == 1


def test_one_slow_run_moves_a_mean_without_bound_but_not_a_utility() -> None:
    utility = RuntimeUtility("exponential", 60)
    times = [10.0] * 99
    before = expected_utility(utility, times).low
    after = expected_utility(utility, [*times, 1e12]).low
    assert abs(after - before) <= 1 / 100
    reliable, risky = expected_utility(utility, [40.0] * 100), expected_utility(utility, [*times, 1e5])
    assert sum([40.0] * 100) < sum([*times, 1e5])
    assert reliable.high < risky.low  # the means say the opposite


def test_stopped_runs_are_bounded_not_taken_for_their_cap() -> None:
    utility = RuntimeUtility("exponential", 60)
    capped = expected_utility(utility, [10, 80, 80], cap=80)
    truth = expected_utility(utility, [10, 100, 5000])
    assert capped.low < truth.low == truth.high < capped.high
    assert capped.high - capped.low == pytest.approx(2 / 3 * utility(80))
    with pytest.raises(PreferoError, match="k0 is 0"):
        RuntimeUtility("step", 0)


def test_a_rewrite_is_worth_its_passing_first() -> None:
    worst_passing = rewrite_reward(True, True, efficiency_gain(1, 1e9), False)[1]
    best_failing = rewrite_reward(False, False, efficiency_gain(1, 0), True)[1]
    assert worst_passing == pytest.approx(0.5 * (0.5 - 0.5 * math.tanh(1)))
    assert best_failing == pytest.approx(-0.05)
    assert best_failing < worst_passing
    assert efficiency_gain(3, 3) == 0
    assert efficiency_gain(1, 10) == -math.tanh(1) == efficiency_gain(1, 1e12)


def test_percentiles_count_the_strictly_better() -> None:
    assert percentile(1, [1, 2, 3, 4]) == 1
    assert percentile(5, [1, 2, 3, 4]) == 0
    assert efficiency_score([1, 1], [True, False], [1, 2]) == 0.5
    assert memory_time([0, 1, 3], [2, 4, 4]) == 3 + 8


# Attack success


def test_shares_of_groups_add_up_to_the_share_of_all() -> None:
    rng = random.Random(0)
    groups, happened = rng.choices("abc", k=200), [rng.random() < 0.3 for _ in range(200)]
    by, everything = shares_by(groups, happened), share(happened)
    assert sum(one.value * one.count for one in by.values()) / 200 == pytest.approx(everything.value)
    assert everything.value in everything.interval
    assert shares_by(groups, happened)["a"].interval.high > everything.interval.high - 0.2
    with pytest.raises(PreferoError, match="at least one record"):
        share([])


# Recommendation and retrieval


def test_recommendation_measures_at_their_ends() -> None:
    same = [[0, 1, 2]] * 4
    assert over_recommended_share(same) == 1
    assert distinct_share(same) == 3 / 12
    assert hit_rate(same, [2, 2, 9, 9], 3) == 0.5
    assert hit_rate(same, [2, 2, 2, 2], 2) == 0
    assert mean_ndcg(same, [0] * 4, 3) == 1
    assert mean_ndcg(same, [2] * 4, 3) == pytest.approx(1 / math.log2(4))
    fair = genre_fairness([[0, 1]], [[0], [1]], [0.5, 0.5])
    assert (fair.range, fair.mean) == (0, 0)
    with pytest.raises(PreferoError, match="beyond the 2"):
        genre_fairness([[0]], [[2]], [0.5, 0.5])


def test_gains_are_linear() -> None:
    """Exponential gains, 2^g − 1, would give another value for grades above 1."""
    assert ndcg([1, 3]) == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert ndcg([3, 1]) == 1
    assert ndcg([0, 0]) == 0
    assert ndcg([1, 0], ideal=[1, 1]) < 1  # what was not found counts


def test_mixing_is_over_what_the_dense_retriever_found() -> None:
    documents = [["a", "b"], ["b", "c"], ["c", "c", "d"], ["e"]]
    words = bm25(documents, ["c", "d"])
    dense = {0: 0.3, 2: 0.1, 3: 0.2}
    assert in_order(mixed(words, dense, 1.0)) == [0, 3, 2]
    assert in_order(mixed(words, dense, 0.0))[0] == 2
    assert sum(mixed(words, dense, 0.4).values()) <= 1
    moved = {document: score + 100 for document, score in dense.items()}
    assert mixed(words, moved, 0.4) == pytest.approx(mixed(words, dense, 0.4))
    assert bm25(documents, ["nowhere"]) == [0] * 4


# Graphs


def graphs(most: int = 4) -> st.SearchStrategy[LabelledGraph]:
    def with_edges(labels: list[str]) -> st.SearchStrategy[LabelledGraph]:
        places = st.integers(0, len(labels) - 1)
        edges = st.lists(st.tuples(places, places), max_size=5, unique=True)
        return edges.map(lambda found: LabelledGraph.of(labels, found))

    return st.lists(st.sampled_from("AB"), min_size=1, max_size=most).flatmap(with_edges)


def by_all_assignments(first: LabelledGraph, second: LabelledGraph) -> int:
    """Pad both with absent nodes, and try every permutation."""
    size = len(first.labels) + len(second.labels)

    def label(graph: LabelledGraph, node: int) -> object:
        return graph.labels[node] if node < len(graph.labels) else None

    best = 10**9
    for order in permutations(range(size)):
        nodes = sum(label(first, i) != label(second, order[i]) for i in range(size))
        image = {(order[start], order[end]) for start, end in first.edges}
        best = min(best, nodes + len(image ^ second.edges))
    return best


@settings(max_examples=60, deadline=None)
@given(graphs(3), graphs(3))
def test_the_edit_distance_is_the_smallest_over_all_assignments(
    first: LabelledGraph, second: LabelledGraph
) -> None:
    assert edit_distance(first, second) == by_all_assignments(first, second)


@settings(max_examples=40, deadline=None)
@given(graphs(5), st.randoms(use_true_random=False))
def test_another_order_is_the_same_program_and_edits_are_counted(
    graph: LabelledGraph, rng: random.Random
) -> None:
    order = list(range(len(graph.labels)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    turned = LabelledGraph.of(
        [graph.labels[old] for old in order], [(place[a], place[b]) for a, b in graph.edges]
    )
    assert same_program(graph, turned)
    edited = LabelledGraph.of((*turned.labels, "C"), [*turned.edges, (0, 0)])
    assert 1 <= edit_distance(graph, edited) <= 2
    assert edit_distance(graph, edited) == edit_distance(edited, graph)
    assert not same_program(graph, edited)


@pytest.mark.parametrize("labels", ["a", "abc"])
def test_graphs_of_eleven_nodes_are_compared_in_seconds(labels: str) -> None:
    """Programs' graphs: sparse. Edits that are known are no fewer than the distance."""
    rng = random.Random(0)
    names = [rng.choice(labels) for _ in range(11)]
    edges = {(a, b) for a in range(11) for b in range(11) if a != b and rng.random() < 0.2}
    order = rng.sample(range(11), 11)
    other = LabelledGraph.of(
        [names[order.index(place)] for place in range(11)], [(order[a], order[b]) for a, b in edges]
    )
    graph = LabelledGraph.of(names, sorted(edges))
    started = time.monotonic()
    assert edit_distance(graph, other) == 0
    edited = LabelledGraph.of((*other.labels, "z"), sorted(other.edges)[2:])
    assert edit_distance(graph, edited) == 3
    unlike = LabelledGraph.of(
        [rng.choice(labels) for _ in range(11)], [(a, (a * 3 + 1) % 11) for a in range(11)]
    )
    assert edit_distance(graph, unlike) == edit_distance(unlike, graph) > 3
    assert time.monotonic() - started < 60


def test_graphs_are_refused_that_are_too_large_or_torn() -> None:
    with pytest.raises(PreferoError, match="no node at an end"):
        LabelledGraph.of("ab", [(0, 2)])
    large = LabelledGraph.of("a" * 13, [])
    with pytest.raises(PreferoError, match="13 and 13 nodes"):
        edit_distance(large, large)


# Contexts


def test_a_scorer_that_ignores_the_context_gets_half() -> None:
    rng = random.Random(0)
    scores = [(rng.random(), rng.random()) for _ in range(50)]
    blind = reversal_accuracy(scores, scores, scores)
    assert blind.context_specific == blind.no_context == 0.5
    assert blind.both == 0
    swapped = reversal_accuracy([(1, 0)], [(1, 0)])
    assert (swapped.under_a, swapped.under_b) == (1, 0)
    assert reversal_accuracy([(1, 1)], [(1, 1)]).context_specific == 0


@given(st.integers(0, 10_000))
def test_the_error_is_within_its_bound(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tables = torch.rand(4, 5, 3, generator=generator, dtype=torch.float64)
    contexts, estimated = (one / one.sum(-1, keepdim=True) for one in tables[:2])
    found = context_error(contexts, estimated, tables[2], tables[3])
    assert (found.error <= found.bound + 1e-12).all()
    known = context_error(contexts, contexts, tables[2], tables[3])
    assert (known.inference == 0).all()


def test_the_bound_is_reached() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    found = context_error(one, other, one, one)
    assert found.error == found.bound == 1
