from __future__ import annotations

import random
from statistics import correlation, fmean

import pytest
from hypothesis import given, strategies as st

from prefero.demo.reviews import (
    ASPECTS,
    CATEGORY,
    GENERAL,
    SIGN,
    prompts,
    read_review,
    vocabulary,
    write_review,
)

SOUP = "we tried this soup today."
TRAIN = prompts(held_out=False)

CORPUS_SEED = 11


def corpus(count: int) -> list[tuple[str, str]]:
    rng = random.Random(CORPUS_SEED)
    return [(prompt, write_review(prompt, rng)) for prompt in (rng.choice(TRAIN) for _ in range(count))]


@given(st.sampled_from(TRAIN), st.integers(0, 2**32))
def test_whatever_is_written_can_be_read(prompt: str, seed: int) -> None:
    reading = read_review(prompt, write_review(prompt, random.Random(seed)))
    assert reading.valid
    assert abs(reading.score) <= 1.4


def test_the_corpus_is_neutral_in_worth_and_in_length() -> None:
    reviews = corpus(5000)
    scores = [read_review(prompt, text).score for prompt, text in reviews]
    # 5,000 scores of deviation 0.75: the mean is within 0.04 of 0 in all but one of 5,000 corpora.
    assert abs(fmean(scores)) < 0.04
    assert abs(correlation([len(text.split()) for _, text in reviews], scores)) < 0.05


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("the taste was good.", 1.0),
        ("the taste was very delicious.", 1.4),
        ("the taste was slightly bland.", -0.6),
        ("the taste was not bad.", 0.6),
        ("the taste was not very good.", -0.84),
        ("the taste was good, and the aroma was bad.", 0.0),
        ("the taste was good, but the aroma was bad.", (1 - 2) / 3),
        ("the taste was bad, but the aroma was good.", (-1 + 2) / 3),
        ("the taste was bad. i would not avoid it.", 0.0),
        ("the taste was good. the aroma was great. i would return it.", 1 / 3),
        ("the taste was not extremely awful, but the sauce felt silky. i would recommend it.", 3.84 / 4),
    ],
)
def test_worth_by_hand(text: str, worth: float) -> None:
    reading = read_review(SOUP, text)
    assert reading.valid
    assert reading.score == pytest.approx(worth)


def test_no_single_word_decides() -> None:
    def worth(text: str) -> float:
        return read_review(SOUP, text).score

    assert worth("the taste was not bad.") < worth("the taste was good.")
    assert worth("the taste was not good.") > worth("the taste was bad.")
    assert worth("the taste was good. i would not avoid it.") > worth("the taste was good. i would avoid it.")


def test_saying_the_same_at_length_earns_nothing() -> None:
    short = "the taste was good."
    long = "the taste was good. the aroma was good, and the sauce was good. i would recommend it."
    assert read_review(SOUP, short).score == read_review(SOUP, long).score


@pytest.mark.parametrize(
    ("text", "sentiment"),
    [
        ("", 0.0),
        ("the taste was good", 1.0),  # no final dot
        ("the taste was good, and", 1.0),
        ("the room was good.", 1.0),  # an aspect of another category
        ("the taste was creamy.", 1.0),  # an adjective of another aspect
        ("the taste was good. the taste was good.", 1.0),  # said twice
        ("the taste was good the aroma was good.", 1.0),  # no joint
        ("i would recommend it.", 1.0),  # no clause
        ("the taste was good. i would recommend it. the aroma was good.", 1.0),  # the closing is last
        ("the taste was good. i would recommend it. i would recommend it.", 1.0),
        ("the taste was good, and i would recommend it.", 1.0),
        ("taste the was good.", 0.0),
        ("the taste was good. unheard of.", 1.0),
    ],
)
def test_broken_text_loses_a_point_of_what_can_be_read(text: str, sentiment: float) -> None:
    reading = read_review(SOUP, text)
    assert not reading.valid
    assert reading.score == pytest.approx(sentiment - 1)


def test_a_text_is_no_review_of_a_prompt_without_an_item() -> None:
    assert not read_review("hello.", "the taste was good.").valid


@given(st.lists(st.sampled_from(vocabulary()), max_size=30), st.sampled_from(TRAIN))
def test_any_words_get_a_worth_within_bounds(words: list[str], prompt: str) -> None:
    assert -2.4 <= read_review(prompt, " ".join(words)).score <= 1.4


def test_adjectives_have_one_sign_and_one_place() -> None:
    own = [
        word for aspects in ASPECTS.values() for sides in aspects.values() for side in sides for word in side
    ]
    general = [word for side in GENERAL for word in side]
    assert len(own) + len(general) == len({*own, *general}) == len(SIGN)
    names = [aspect for aspects in ASPECTS.values() for aspect in aspects]
    assert len({*names, *CATEGORY, *SIGN}) == len(names) + len(CATEGORY) + len(SIGN)


def test_the_split_is_a_split_and_leaves_no_word_unseen() -> None:
    held_out = prompts(held_out=True)
    assert not set(held_out) & set(TRAIN)
    assert len(held_out) + len(TRAIN) == 36_864
    assert 0.18 < len(held_out) / 36_864 < 0.22
    words = [set(" ".join(side).replace(".", "").split()) for side in (held_out, TRAIN)]
    assert words[0] == words[1]
