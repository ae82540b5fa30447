from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from prefero.errors import PreferoError
from prefero.evaluate.length_control import (
    STRENGTHS,
    Anchors,
    Coefficients,
    Rows,
    cross_entropies,
    cross_validated,
    fit,
    length_controlled_win_rate,
)


def judged(
    count: int = 400,
    *,
    model: float = -0.5,
    length: float = -1.5,
    difficulty: float = 0.0,
    longer: float = 300.0,
    soft: bool = False,
    seed: int = 0,
) -> dict[str, list[float]]:
    """A simulated annotator who follows the model of the regression."""
    rng = np.random.default_rng(seed)
    baseline = rng.gamma(8, 200, count).round()
    lengths = np.maximum(baseline + longer + rng.normal(0, 400, count), 1).round()
    hardness = rng.normal(size=count)
    gap = baseline - lengths
    logits = model + length * np.tanh(gap / gap.std(ddof=1)) + difficulty * hardness
    chance = 1 / (1 + np.exp(-logits))
    preferences = chance if soft else (rng.random(count) < chance).astype(float)
    return {
        "preferences": preferences.tolist(),
        "lengths": lengths.tolist(),
        "baseline_lengths": baseline.tolist(),
        "difficulty": hardness.tolist(),
    }


def reference(rows: Rows, strength: float) -> np.ndarray:
    """scikit-learn's optimum of the same objective; each row twice, once for each label."""
    from sklearn.linear_model import LogisticRegression

    features = np.concatenate([rows.features, rows.features])
    labels = np.repeat([1, 0], len(rows))
    weights = np.concatenate([rows.targets, 1 - rows.targets]) * np.tile(rows.weights, 2)
    fitted = LogisticRegression(
        C=strength, l1_ratio=1, solver="saga", fit_intercept=False, tol=1e-9, max_iter=100_000
    )
    return fitted.fit(features, labels, sample_weight=weights).coef_[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strength", [0.01, 0.05, 1.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_that_of_scikit_learn(strength: float, seed: int) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(300, 3)) * [1, 0.3, 2]
    features[:, 1] = 1
    rows = Rows(features, rng.random(300), rng.random(300))
    ours, theirs = fit(rows, strength), reference(rows, strength)
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert [one == 0 for one in ours] == [abs(one) < 1e-7 for one in theirs]


@pytest.mark.oldest
@pytest.mark.filterwarnings("ignore")
def test_the_win_rate_is_that_of_the_published_pipeline() -> None:
    """The steps that AlpacaEval publishes, taken with scikit-learn: anchors first, the rows doubled, grouped
    folds, scores weighted and averaged over folds."""
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    data = judged(120, difficulty=0.8, seed=3)
    gamed = judged(80, model=0.0, difficulty=0.5, longer=-200, seed=4)
    gap = np.subtract(gamed["baseline_lengths"], gamed["lengths"])
    anchors = Anchors(gamed["preferences"], (gap / gap.std(ddof=1)).tolist(), gamed["difficulty"])
    ours = length_controlled_win_rate(**data, anchors=anchors, resamples=2)

    gap = np.subtract(data["baseline_lengths"], data["lengths"])
    scaled = np.concatenate([anchors.length, gap / gap.std(ddof=1)])
    features = np.stack(
        [np.tanh(scaled), np.repeat([0.0, 1.0], [80, 120]), gamed["difficulty"] + data["difficulty"]], axis=1
    )
    target = np.array(gamed["preferences"] + data["preferences"])
    weight = np.repeat([0.1, 1.0], [80, 120])
    doubled = {
        "X": np.concatenate([features, features]),
        "y": np.repeat([1, 0], 200),
        "sample_weight": np.concatenate([target * weight, (1 - target) * weight]),
    }
    groups = np.tile(np.arange(200), 2)

    def fitted(strength: float, rows: np.ndarray) -> LogisticRegression:
        model = LogisticRegression(
            C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-8, random_state=123,
            max_iter=10_000,
        )  # fmt: skip
        return model.fit(*(doubled[name][rows] for name in ("X", "y", "sample_weight")))

    losses = np.zeros((5, 10))
    for fold, (train, test) in enumerate(GroupKFold(5).split(doubled["X"], groups=groups)):
        for place, strength in enumerate(np.logspace(-4, 4, 10)):
            chance = fitted(strength, train).predict_proba(doubled["X"][test])[:, 1]
            truth = target[groups[test]]
            each = truth * np.log(chance) + (1 - truth) * np.log1p(-chance)
            losses[fold, place] = -np.mean(each * weight[groups[test]])
    strength = np.logspace(-4, 4, 10)[losses.mean(0).argmin()]
    model = fitted(strength, np.arange(400))
    at_equal_length = np.stack([np.zeros(120), np.ones(120), data["difficulty"]], axis=1)
    assert ours.strength == pytest.approx(strength)
    found = ours.coefficients
    assert [found.length, found.model, found.difficulty] == pytest.approx(model.coef_[0], abs=1e-4)
    assert ours.rate == pytest.approx(model.predict_proba(at_equal_length)[:, 1].mean(), abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3)), min_size=4, max_size=30),
    st.sampled_from(STRENGTHS),
)
def test_no_step_in_any_direction_lowers_the_objective(
    values: list[tuple[float, float, float]], strength: float
) -> None:
    targets, first, second = np.array(values).T
    rows = Rows(np.stack([first, second], axis=1), targets, np.ones(len(values)))

    def objective(at: np.ndarray) -> float:
        return float(np.abs(at).sum() + strength * cross_entropies(rows, at).sum())

    found = fit(rows, strength)
    best = objective(found)
    for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
        for size in (1e-4, 1e-2, 1.0):
            moved = found + size * np.array([np.cos(angle), np.sin(angle)])
            assert objective(moved) >= best - 1e-9 * max(1.0, abs(best))


def test_a_judge_of_length_alone_is_seen_through() -> None:
    data = judged(600, model=0.0, length=-4.0, longer=600)
    found = length_controlled_win_rate(**data, resamples=50)
    assert found.raw > 0.75
    assert found.rate == pytest.approx(0.5, abs=0.07)
    assert found.rate in found.interval


def test_a_judge_blind_to_length_is_left_alone() -> None:
    data = judged(600, model=0.8, length=0.0, longer=600, soft=True)
    found = length_controlled_win_rate(**data, resamples=50)
    assert found.rate == pytest.approx(found.raw, abs=0.002)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_a_model_that_always_loses_or_wins_has_that_rate(outcome: float) -> None:
    """All rows then have one label; liblinear by itself fits nothing and gives a half."""
    found = length_controlled_win_rate(
        [outcome] * 40, list(range(10, 50)), list(range(50, 10, -1)), resamples=5
    )
    assert found.rate == pytest.approx(outcome, abs=1e-4) and found.raw == outcome


def test_equal_lengths_change_nothing() -> None:
    """A standard deviation of 0 is no division by it."""
    preferences = [1.0, 0.0, 0.5, 1.0] * 10
    found = length_controlled_win_rate(preferences, [5.0] * 40, [5.0] * 40, resamples=20)
    assert found.coefficients.length == 0
    assert found.rate == pytest.approx(0.625, abs=0.01)


def test_the_coefficients_of_an_annotator_are_found_again() -> None:
    data = judged(4000, model=-0.7, length=-1.2, difficulty=0.9, soft=True)
    found = length_controlled_win_rate(**data, resamples=2).coefficients
    assert (found.model, found.length, found.difficulty) == pytest.approx((-0.7, -1.2, 0.9), abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_swapping_model_and_baseline_gives_the_other_share(seed: int) -> None:
    data = judged(150, difficulty=0.6, seed=seed)
    swapped = {
        "preferences": [1 - one for one in data["preferences"]],
        "lengths": data["baseline_lengths"],
        "baseline_lengths": data["lengths"],
        "difficulty": data["difficulty"],
    }
    found, other = (length_controlled_win_rate(**one, resamples=2) for one in (data, swapped))
    assert other.rate == pytest.approx(1 - found.rate, abs=1e-9)
    assert other.coefficients.length == pytest.approx(found.coefficients.length, abs=1e-7)


def test_a_model_against_itself_gets_half() -> None:
    lengths = [float(n) for n in range(10, 50)]
    found = length_controlled_win_rate([0.5] * 40, lengths, lengths, resamples=2)
    assert found.rate == found.raw == 0.5
    found_one = Coefficients(0.7, -1.0, 0.3)
    assert found_one.against(found_one, [0.1, -2.0]) == 0.5
    other = Coefficients(-0.4, -1.0, 0.9)
    assert found_one.against(other, [0.1, -2.0]) + other.against(found_one, [0.1, -2.0]) == pytest.approx(1)


def test_the_unit_of_length_does_not_matter() -> None:
    data = judged(100)
    words = data | {name: [one / 7 for one in data[name]] for name in ("lengths", "baseline_lengths")}
    first, second = (length_controlled_win_rate(**one, resamples=2) for one in (data, words))
    assert first.rate == pytest.approx(second.rate, abs=1e-9)


def test_anchors_hold_the_length_term_back() -> None:
    """A model that is always long and always wins tells nothing of length by itself."""
    data = judged(200, model=-1.0, length=-3.0, longer=500)
    free = length_controlled_win_rate(**data, resamples=2)
    blind = Anchors([0.5] * 400, [1.0, -1.0] * 200, [0.0] * 400, weight=200.0)
    held = length_controlled_win_rate(**data, anchors=blind, resamples=2)
    assert abs(held.coefficients.length) < 0.1 * abs(free.coefficients.length)


def test_folds_are_as_grouped_folds_are() -> None:
    pytest.importorskip("sklearn")
    from sklearn.model_selection import GroupKFold

    groups = np.tile(np.arange(13), 2)
    theirs = [sorted(set(groups[test])) for _, test in GroupKFold(5).split(groups, groups=groups)]
    ours = np.arange(13)[::-1] % 5
    assert theirs == [np.flatnonzero(ours == fold).tolist() for fold in range(5)]


def test_too_little_or_uneven_data_is_refused() -> None:
    with pytest.raises(PreferoError, match="at least 10 comparisons; got 3"):
        length_controlled_win_rate([1, 0, 1], [1, 2, 3], [3, 2, 1])
    with pytest.raises(PreferoError, match="12 preferences and 3 lengths"):
        length_controlled_win_rate([1] * 12, [1, 2, 3], [3] * 12)
    with pytest.raises(PreferoError, match="difficulty, number 2, is not a number"):
        length_controlled_win_rate([1] * 12, [1] * 12, [3] * 12, difficulty=[0, float("nan"), *[0] * 10])
    with pytest.raises(PreferoError, match="at least 5 rows"):
        cross_validated(Rows(np.ones((3, 1)), np.ones(3), np.ones(3)))
