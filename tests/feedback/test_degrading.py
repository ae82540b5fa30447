"""Key phrases, and responses without some of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, strategies as st

from prefero.data.examples import Example, Response
from prefero.errors import PreferoError
from prefero.feedback.degrading import degraded, key_phrases, with_degraded_responses, without


def test_phrases_are_what_stop_words_leave_and_a_word_scores_its_degree_over_its_frequency() -> None:
    text = "compatibility of systems of linear constraints"
    found = [(text[one.start : one.stop], one.score) for one in key_phrases(text)]
    assert found == [("compatibility", 1.0), ("systems", 1.0), ("linear constraints", 4.0)]


def test_punctuation_and_line_ends_part_phrases_and_case_does_not_matter() -> None:
    text = "Deep learning, big data\nDeep networks"
    found = [(text[one.start : one.stop], one.score) for one in key_phrases(text)]
    assert found == [("Deep learning", 4.0), ("big data", 4.0), ("Deep networks", 4.0)]


def test_the_best_phrases_go_first_and_the_words_keep_their_order() -> None:
    text = "the compatibility of systems of linear constraints matters"
    variants = degraded(text, degrees=4)
    assert [one.text for one in variants] == [
        text,
        "the compatibility of systems of ",
        "the of systems of ",
        "the of of ",
    ]
    assert [one.degree for one in variants] == [0, 1, 2, 3]


def test_few_phrases_have_few_variants_with_the_degree_of_what_is_gone() -> None:
    assert [(one.text, one.degree) for one in degraded("it is a house", degrees=5)] == [
        ("it is a house", 0),
        ("it is a ", 4),
    ]
    assert degraded("it is what it is") == degraded("it is what it is", degrees=2)
    assert len(degraded("house")) == 1, "nothing would be left"


@given(st.text(alphabet="ab the,of. \n", max_size=60), st.integers(2, 6), st.floats(0.1, 1))
def test_more_goes_with_every_degree_and_nothing_else_than_phrases(
    text: str, degrees: int, most: float
) -> None:
    variants = degraded(text, degrees, most)
    assert variants[0].text == text and variants[0].degree == 0
    for less, more in pairwise(variants):
        assert less.removed < more.removed and less.degree < more.degree < degrees
        assert len(more.text) < len(less.text)
    everything = without(text, key_phrases(text))
    assert not key_phrases(everything)


def pair(**changes: str) -> Example:
    texts = {"chosen": "a red house with green doors", "rejected": "the blue sky over grey hills", **changes}
    return Example("p", tuple(Response(text, role, {"score": 1.0}) for role, text in texts.items()))


def test_a_pair_gets_the_roles_and_the_column_of_the_method() -> None:
    found = [with_degraded_responses(pair(), np.random.default_rng(seed)) for seed in range(20)]
    assert found[0].roles == ("chosen", "rejected", "chosen_degraded", "rejected_degraded")
    assert found[0].responses[:2] == tuple(
        Response(one.content, one.role, {"score": 1.0, "degree": 0}) for one in pair().responses
    )
    for example in found:
        for own, variant in zip(example.responses[:2], example.responses[2:], strict=True):
            assert (variant.content == own.content) == (variant.columns["degree"] == 0)
    assert {example.responses[2].columns["degree"] for example in found} == {0, 1, 2}


def test_what_cannot_be_degraded_is_refused() -> None:
    with pytest.raises(PreferoError, match="has no rejected response"):
        with_degraded_responses(Example("p", (Response("a", "chosen"),)), np.random.default_rng(0))
    with pytest.raises(PreferoError, match="at least 2 degrees"):
        degraded("a house", degrees=1)
