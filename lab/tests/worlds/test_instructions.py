from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given, strategies as st

from prefero.demo.start import word_tokenizer
from prefero.errors import PreferoError
from prefero_lab.worlds.instruction_grammar import (
    FACTS,
    prompts,
    read_note,
    read_prompt,
    vocabulary,
    write_note,
)
from prefero_lab.worlds.instructions import INSTRUCTIONS, OBJECTIVES, fillers, objectives, words

TEA = "write a warm note on tea for guests in points with two facts, mention aroma."
TRAIN = prompts(held_out=False)


@given(st.sampled_from(TRAIN), st.integers(0, 2**32))
def test_whatever_is_written_can_be_read(prompt: str, seed: int) -> None:
    text = write_note(prompt, random.Random(seed))
    assert read_note(text).valid
    assert all(-1 <= value <= 1 for value in objectives(prompt, text).values())
    assert words(prompt, text) < INSTRUCTIONS.max_new_tokens


@pytest.mark.parametrize(
    ("text", "content", "tone", "named", "form"),
    [
        ("- lovely aroma. - gentle foam.", 1, 1, 1, 1),
        ("- lovely aroma.", 0.5, 1, 1, 1),
        ("- of course, lovely aroma. - in other words, gentle foam.", 1, 1, 1, 1),  # filler is free
        ("- lovely aroma. - gentle foam. - cosy colour.", 0.85, 1, 1, 1),  # one more than asked
        ("- lovely aroma. - gentle aroma.", 0.35, 1, 1, 1),  # said twice
        ("- lovely aroma. - gentle towers.", 0.35, 1, 1, 1),  # not true of drinks
        ("- notable colour. - gentle foam.", 1, 0.5, 0, 1),
        ("the tea has lovely aroma. - gentle foam.", 1, 1, 1, 0.5),
        ("the coffee has lovely aroma. - gentle foam.", 0.35, 1, 0, 0.5),  # of another topic
        ("", 0, 0, 0, 0),
    ],
)
def test_objectives_by_hand(text: str, content: float, tone: float, named: float, form: float) -> None:
    found = objectives(TEA, text)
    assert list(found) == list(OBJECTIVES)
    assert found == pytest.approx({"content": content, "tone": tone, "named": named, "form": form})
    broken = 0 if read_note(text).valid else 1
    assert INSTRUCTIONS.gold(TEA, text) == pytest.approx((content + tone + named + form) / 4 - broken)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- lovely aroma",
        "lovely aroma.",
        "- aroma.",
        "- course, lovely aroma.",
        "- of course lovely aroma.",
        "the tea lovely aroma.",
        "- lovely aroma. - gentle",
    ],
)
def test_broken_text_is_seen(text: str) -> None:
    assert not read_note(text).valid


@given(st.sampled_from(TRAIN), st.lists(st.sampled_from(vocabulary()), max_size=30))
def test_any_words_can_be_read(prompt: str, text: list[str]) -> None:
    assert -1.25 <= INSTRUCTIONS.gold(prompt, " ".join(text)) <= 1


def test_annotators_weigh_the_same_objectives_otherwise() -> None:
    named_cold, warm = "- notable aroma. - notable foam.", "- lovely colour. - gentle foam."
    stylist, checker = INSTRUCTIONS.judge("stylist"), INSTRUCTIONS.judge("checker")
    assert stylist(TEA, warm) > stylist(TEA, named_cold)
    assert checker(TEA, warm) < checker(TEA, named_cold)
    assert INSTRUCTIONS.gold(TEA, warm) == INSTRUCTIONS.gold(TEA, named_cold)


def test_filler_earns_nothing_but_with_those_who_like_length() -> None:
    short, long = (
        "- lovely aroma. - gentle foam.",
        "- of course, lovely aroma. - as you may know, gentle foam.",
    )
    assert INSTRUCTIONS.gold(TEA, long) == INSTRUCTIONS.gold(TEA, short)
    assert INSTRUCTIONS.judge("fond of length")(TEA, long) > INSTRUCTIONS.judge("fond of length")(TEA, short)
    assert INSTRUCTIONS.judge("brief")(TEA, long) < INSTRUCTIONS.judge("brief")(TEA, short)
    assert (fillers(TEA, short), fillers(TEA, long)) == (0, 2)


def test_an_unknown_taste_is_an_error() -> None:
    with pytest.raises(PreferoError, match="no taste 'stylst'; did you mean 'stylist'"):
        INSTRUCTIONS.judge("stylst")


def test_the_corpus_leaves_something_to_learn() -> None:
    notes = INSTRUCTIONS.corpus(3000, 11)
    assert 0.6 < fmean(INSTRUCTIONS.gold(*note) for note in notes) < 0.85
    means = {name: fmean(of(*note) for note in notes) for name, of in INSTRUCTIONS.measures.items()}
    assert means["valid"] == 1 and all(0.5 < means[name] < 0.9 for name in OBJECTIVES)


def test_the_split_is_a_split_and_leaves_no_word_unseen() -> None:
    held_out = prompts(held_out=True)
    assert not set(held_out) & set(TRAIN)
    assert len({*held_out, *TRAIN}) == 4608 and 0.18 < len(held_out) / 4608 < 0.22
    assert {word for text in held_out for word in text.split()} == {
        word for text in TRAIN for word in text.split()
    }
    assert all(read_prompt(text) is not None for text in held_out)


def test_a_word_is_a_token_and_comes_back() -> None:
    tokenizer = word_tokenizer(vocabulary(), 96)
    for prompt, text in INSTRUCTIONS.corpus(50, 0):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in [*ids, *tokenizer(prompt).input_ids]
        assert tokenizer.decode(ids) == text and len(ids) == words(prompt, text)


def test_facts_are_of_one_category() -> None:
    every = [fact for facts in FACTS.values() for fact in facts]
    assert len(set(every)) == len(every)
