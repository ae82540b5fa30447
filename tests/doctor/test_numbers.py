"""The numbers under the findings, against hand-worked values, definitions and simulations."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, strategies as st

from prefero.doctor.contents import script
from prefero.doctor.labels import agreement, flip_rate, of_disagreement, of_majority
from prefero.doctor.length import area, length_bias, logistic_slope
from prefero.doctor.nearness import candidates, similarity, sketches
from prefero.doctor.sides import changed_share, common_words, predicted, probe, shared_beginning

Words = st.lists(st.sampled_from("abcd"), max_size=14)


def longest_common(one: list[str], other: list[str]) -> int:
    """By the table of the textbook."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, first in enumerate(one):
        for j, second in enumerate(other):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if first == second else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@given(Words, Words)
def test_common_words_are_those_of_the_table(one, other):
    assert common_words(one, other) == longest_common(one, other)


def test_changed_share_by_hand():
    assert changed_share(["a", "b", "c", "d"], ["a", "x", "c", "d"]) == pytest.approx(2 / 8)
    assert changed_share(["a"], ["b"]) == 1 and changed_share(["a"], ["a"]) == 0 == changed_share([], [])
    assert (
        shared_beginning(["a", "b", "c"], ["a", "b", "d", "e"])
        == 2
        == shared_beginning(["a", "b"], ["a", "b", "c"])
    )


def test_the_area_is_that_of_its_definition_ties_half():
    better, worse = np.asarray([1.0, 2, 3, 3]), np.asarray([0.0, 2, 2, 3])
    expected = np.mean([(a > b) + 0.5 * (a == b) for a in better for b in worse])
    assert area(better, worse, "").value == pytest.approx(expected)


def test_the_area_interval_covers_when_pairs_share_what_makes_them_long():
    """Ignoring that the sides of a pair go together would make the interval several times too wide."""
    generator = np.random.default_rng(0)
    inside, widths, naive = 0, [], []
    for _ in range(200):
        common = generator.normal(0, 3, 150)
        better, worse = common + generator.normal(0.5, 1, 150), common + generator.normal(0, 1, 150)
        found = area(better, worse, "")
        alone = area(better, worse, "", paired=False)
        truth = 0.5 * (1 + math.erf(0.5 / math.sqrt(2 * (9 + 1)) / math.sqrt(2)))
        inside += truth in found.interval
        widths.append(found.interval.high - found.interval.low)
        naive.append(alone.interval.high - alone.interval.low)
    assert inside >= 180
    assert np.mean(widths) < 0.5 * np.mean(naive)


def test_the_slope_is_found_again_and_its_error_is_right():
    generator = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(100):
        x = generator.normal(0, 1, 400)
        x = np.where(generator.random(400) < 1 / (1 + np.exp(-0.8 * x)), x, -x)
        slope, error = logistic_slope(x)
        estimates.append(slope)
        errors.append(error)
    assert np.mean(estimates) == pytest.approx(0.8, abs=0.03)
    assert np.std(estimates) == pytest.approx(np.mean(errors), rel=0.25)


def test_a_length_that_decides_everything_has_a_bounded_slope():
    bias = length_bias([20] * 50, [10] * 50)
    assert bias.longer.value == 1 and bias.twice.value > 0.99 and math.isfinite(bias.twice.interval.low)
    assert length_bias([10] * 5, [10] * 5).twice.value == 0.5


def test_alpha_of_the_textbook():
    """Krippendorff, 2011: two observers with binary data, and four with nominal data and missing values."""
    one, other = "0100000010", "1110010000"
    assert agreement(range(10), list(zip(one, other, strict=True))).alpha == pytest.approx(0.095, abs=5e-4)
    four = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    votes = [tuple(None if vote == "." else vote for vote in unit) for unit in zip(*four, strict=True)]
    found = agreement(range(12), votes)
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert found.interval.low < found.alpha < found.interval.high
    assert found.rows == 11  # the last unit has one vote


def test_full_agreement_and_chance():
    assert agreement([0, 1], [(1.0, 1.0), (0.0, 0.0)]).alpha == 1
    assert agreement([0, 1], [(1.0, None), (None, 0.0)]) is None
    draw = random.Random(0)
    votes = [(draw.choice((1.0, 0.0)), draw.choice((1.0, 0.0))) for _ in range(4000)]
    found = agreement(range(4000), votes)
    assert 0 in found.interval and found.clashing == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2])
def test_single_votes_by_their_disagreement(rate):
    draw = random.Random(1)
    votes = [tuple(float(draw.random() >= rate) for _ in range(3)) for _ in range(3000)]
    found = agreement(range(3000), votes)
    assert rate in of_disagreement(found.clashing, found.decided, "").interval


def test_majorities_by_hand():
    assert of_majority(0.1, 3) == pytest.approx(3 * 0.01 * 0.9 + 0.001)
    assert of_majority(0.1, 2) == pytest.approx(0.01 + 0.5 * 0.18)
    assert of_majority(0.5, 5) == pytest.approx(0.5)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.4])
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_flips_are_found_through_a_predictor_that_errs_by_itself(rate, spread):
    """The predictor is wrong where it is unsure, whatever the labels: only what it is sure of tells of
    flips. Counting its mistakes as flips would give far more."""
    inside, mistakes = 0, []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        lead = generator.normal(0, spread, 1500)
        right = generator.random(1500) < 1 / (1 + np.exp(-lead))
        flips = generator.random(1500) < rate
        leads = np.where(right ^ flips, lead, -lead)
        inside += rate in flip_rate(leads).interval
        mistakes.append(np.mean(leads < 0))
    assert inside >= 17
    assert np.mean(mistakes) > rate + (0.05 if rate < 0.4 else 0)


def test_a_predictor_that_knows_nothing_says_so():
    leads = np.random.default_rng(0).normal(0, 1, 2000)
    interval = flip_rate(leads).interval
    assert interval.high > 0.45 and flip_rate(np.zeros(10)).interval.high == 0.5


def test_fewer_prompts_than_pairs_widen_the_interval():
    generator = np.random.default_rng(0)
    lead = generator.normal(0, 4, 1000)
    leads = np.where(generator.random(1000) < 1 / (1 + np.exp(-lead)), lead, -lead)
    assert flip_rate(leads, 50).interval.high > 1.5 * flip_rate(leads).interval.high


def test_sides_of_one_kind_are_not_told_apart_and_swapping_them_changes_nothing():
    draw = random.Random(0)
    words = [f"w{i}" for i in range(80)]
    texts = [[" ".join(draw.choices(words, k=20)) for _ in range(400)] for _ in range(2)]
    alike = probe(range(400), *texts)
    assert 0.5 in alike.interval
    marked = [f"{one} certainly" for one in texts[0]]
    apart = probe(range(400), marked, texts[1])
    assert apart.accuracy > 0.97 and apart.telling[0][0] in ("certainly", "(length)")
    assert probe(range(400), texts[1], marked).accuracy == pytest.approx(apart.accuracy, abs=0.01)


def test_the_probe_is_tested_on_other_prompts():
    """Responses that are told apart by a word of their prompt alone are not told apart on other prompts."""
    draw = random.Random(0)
    words = [f"w{i}" for i in range(50)]
    prompts = [i // 8 for i in range(400)]
    chosen = [f"yes{p} no{p % 7} " + " ".join(draw.choices(words, k=8)) for p in prompts]
    rejected = [f"no{p} yes{p % 7} " + " ".join(draw.choices(words, k=8)) for p in prompts]
    grouped, scattered = probe(prompts, chosen, rejected), probe(range(400), chosen, rejected)
    assert scattered.accuracy > 0.95
    assert grouped.accuracy < scattered.accuracy
    assert grouped.prompts == 50


def test_texts_of_no_common_words_are_probed_by_length_alone():
    found = probe(range(60), [f"{'a' * i}{i}x" for i in range(40, 100)], [f"b{i}" for i in range(60)])
    assert found.accuracy == 1 and found.telling == (("(length)",), ())


def test_near_texts_are_candidates_and_others_are_not():
    draw = random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    texts = [" ".join(draw.choices(words, k=120)) for _ in range(600)]
    near = [f"{text} and one more thing" for text in texts[:200]]
    found = {tuple(couple) for couple in candidates(sketches([*texts, *near])).tolist()}
    assert found == {(i, 600 + i) for i in range(200)}
    across = {tuple(couple) for couple in candidates(sketches(texts), sketches(near)).tolist()}
    assert across == {(i, i) for i in range(200)}


@pytest.mark.parametrize("script", ["words", "without spaces"])
def test_near_texts_are_rarely_missed(script):
    """Words (or characters) replaced anywhere: of the pairs that are near, nearly all are candidates, also
    those that only just are."""
    draw = random.Random(0)
    if script == "words":
        words, gap = (
            [f"{a}{b}{c}" for a in "bdfgkl" for b in "aeiou" for c in ("", "ming", "st", "ntered")],
            " ",
        )
    else:
        words, gap = [chr(0x4E00 + place) for place in range(3000)], ""
    texts, edited = [], []
    for _ in range(600):
        kept = draw.choices(words, k=draw.randint(25, 150))
        changed = list(kept)
        for _ in range(max(1, len(kept) // draw.randint(12, 60))):
            changed[draw.randrange(len(changed))] = draw.choice(words)
        texts.append(gap.join(kept))
        edited.append(gap.join(changed))
    near = [row for row in range(600) if similarity(texts[row], edited[row]) >= 0.8]
    barely = [row for row in near if similarity(texts[row], edited[row]) < 0.85]
    found = {tuple(couple) for couple in candidates(sketches(texts), sketches(edited)).tolist()}
    assert len(near) > 200 and len(barely) > 30
    assert sum((row, row) in found for row in near) > 0.99 * len(near)
    assert sum((row, row) in found for row in barely) > 0.96 * len(barely)
    assert len(found) < 2 * len(texts)


def test_short_and_empty_texts_have_sketches():
    drawn = sketches(
        ["", "a", "yes", "YES ", "a much longer text than the others", "half of a character: \ud83d"]
    )
    assert drawn.shape == (6, 64)
    assert [2, 3] in candidates(drawn).tolist()
    assert sketches([]).shape == (0, 64)


def test_a_crowd_of_near_texts_is_paired_with_its_first_alone():
    """All with all would be half a million pairs."""
    crowd = [f"the same words in every text, and their number {number}" for number in range(1000)]
    pairs = candidates(sketches(crowd))
    assert len(pairs) < 16 * len(crowd) and set(pairs[:, 1].tolist()) >= set(range(900, 1000))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hello there", "Latin"),
        ("привет, мир", "Cyrillic"),
        ("你好，世界", "Han"),
        ("これは日本語です", "Kana"),
        ("スーパー", "Kana"),
        ("ABC 𝐀 Ａ ﬁ", "Latin"),
        ("مرحبا", "Arabic"),
        ("안녕하세요", "Hangul"),
        ("नमस्ते", "Devanagari"),
        ("γειά σου", "Greek"),
        ("Größe über", "Latin"),
        ("42 + 1 = 43 ✓", ""),
        ("", ""),
    ],
)
def test_scripts(text, name):
    assert script(text) == name


def test_writers_predict_on_the_other_half_alone():
    """Names that say nothing predict half, not more, however many there are."""
    draw = random.Random(0)
    names = [f"m{i}" for i in range(60)]
    none = [tuple(draw.sample(names, 2)) for _ in range(600)]
    assert predicted(none) == pytest.approx(0.5, abs=0.05)
    assert predicted([("strong", "weak")] * 50) == 1
    assert predicted([("a", "a")] * 10) == 0.5
