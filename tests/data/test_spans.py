"""Annotations of parts of a response arrive at the tokens that they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from prefero.data.examples import Span
from prefero.data.formats import load_examples
from prefero.data.spans import READINGS, differing_spans, differing_tokens, mark_differences
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
from prefero.training.batches import Collator, Draw
from tests.data.conftest import TEXTS
from tests.language import LANGUAGE

PAIR = ("chosen", "rejected")
TOKEN_COLUMNS = tuple(READINGS)

ROW: dict[str, Any] = {
    "prompt": "What is the capital of France?",
    "chosen": " It is Paris, of course.",
    "rejected": " It is bread.",
    "chosen_spans": [
        {"start": 7, "end": 12, "segment": 1, "score": 3.5},
        {"start": 14, "end": 23, "weight": 2},
    ],
    "rejected_spans": [{"start": 7, "end": 12, "segment": 1, "score": -1}],
}


def conversation(row: dict[str, Any]) -> dict[str, Any]:
    """The same row as messages."""
    return {
        **row,
        "prompt": [{"role": "user", "content": row["prompt"]}],
        **{role: [{"role": "assistant", "content": row[role]}] for role in PAIR},
    }


def tokenized(row: dict[str, Any], tokenizer: Any, *columns: str, **options: Any):
    return tokenize(load_examples([row]), tokenizer, roles=PAIR, columns=columns, **options)[0]


def covered(example, column: str, response: int, tokenizer: Any, value: float) -> str:
    """The text of the tokens that have the value."""
    cell, row = example.cells[response], example.columns[column][response]
    assert len(row) == len(cell.response)
    return tokenizer.decode(cell.response[row == value])


def test_spans_become_columns_of_their_tokens(base) -> None:
    example = tokenized(ROW, base, "segment", "token_score", "token_weight")
    assert covered(example, "segment", 0, base, 1) == " Paris"
    assert covered(example, "segment", 1, base, 1) == " bread"
    assert covered(example, "token_score", 0, base, 3.5) == " Paris"
    assert covered(example, "token_score", 1, base, -1) == " bread"
    assert covered(example, "token_weight", 0, base, 2) == " of course"
    assert (example.columns["token_weight"][1] == 1).all()
    assert [row.dtype.kind for row in example.columns["segment"]] == ["i", "i"]
    assert example.columns["segment"][0][-1] == 0, "the end token belongs to no span"


@pytest.mark.parametrize("template", ["chatml", "llama", "base"])
def test_templates_move_offsets_and_strip_spaces(template: str, request) -> None:
    tokenizer = request.getfixturevalue(template)
    example = tokenized(conversation(ROW), tokenizer, "segment", "token_weight")
    assert covered(example, "segment", 0, tokenizer, 1).strip() == "Paris"
    assert covered(example, "segment", 1, tokenizer, 1).strip() == "bread"
    assert covered(example, "token_weight", 0, tokenizer, 2).strip() == "of course"


LOUD = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content | upper }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_a_template_that_changes_the_text_is_refused(make_tokenizer) -> None:
    with pytest.raises(PreferoError, match=r"row 1: spans annotate.*template changes its text"):
        tokenized(conversation(ROW), make_tokenizer(LOUD), "segment")


def test_turns_of_a_conversation_have_their_own_offsets(chatml) -> None:
    turns = [
        {"role": "assistant", "content": "I take water."},
        {"role": "user", "content": "and then?"},
        {"role": "assistant", "content": "Then flour and salt."},
    ]
    row = {
        **conversation(ROW),
        "chosen": turns,
        "chosen_spans": [{"turn": 2, "segment": 1}, {"turn": 1, "start": 7, "end": 12, "segment": 2}],
    }
    example = tokenized(row, chatml, "segment")
    assert covered(example, "segment", 0, chatml, 1) == "Then flour and salt."
    assert covered(example, "segment", 0, chatml, 2) == " water"


def test_offsets_count_in_the_field_that_repeats_the_prompt(base) -> None:
    prompt = "Human: how do I bake bread? Assistant:"
    row = {
        "chosen": f"{prompt} mix flour",
        "rejected": f"{prompt} wait",
        "chosen_spans": [{"start": len(prompt) + 5, "end": len(prompt) + 10, "segment": 1}],
    }
    assert covered(tokenized(row, base, "segment"), "segment", 0, base, 1) == " flour"


def test_lists_and_single_responses_have_spans_too(base) -> None:
    spans = [[{"start": 0, "end": 3, "step": 1}], []]
    rows = [{"prompt": "p", "responses": ["mix flour", "wait"], "ranks": [0, 1], "spans": spans}]
    (example,) = tokenize(load_examples(rows), base, roles=(), columns=("step",))
    assert covered(example, "step", 0, base, 1) == "mix"
    assert not example.columns["step"][1].any()
    rows = [{"prompt": "p", "completion": "mix flour", "label": True, "spans": spans[0]}]
    (example,) = tokenize(load_examples(rows), base, roles=(), columns=("step",))
    assert covered(example, "step", 0, base, 1) == "mix"


def test_a_reasoning_step_is_numbered_from_one(base) -> None:
    row = {
        "prompt": "16 eggs",
        "initial_reason_steps": "Step 1: 16\nStep 2: ",
        "chosen": "3",
        "rejected": "4",
    }
    assert (tokenized(row, base, "step").columns["step"][0] == 2).all()


def test_annotations_are_cut_with_their_response(base) -> None:
    whole = tokenized(ROW, base, "segment", "token_weight", "differs")
    for length in range(6, 12):
        short = tokenized(
            ROW,
            base,
            *("segment", "token_weight", "differs"),
            max_length=length,
            too_long="keep_recent_prompt",
        )
        for name in ("segment", "token_weight", "differs"):
            for cell, row, uncut in zip(short.cells, short.columns[name], whole.columns[name], strict=True):
                assert len(cell.response) == len(row)
                np.testing.assert_array_equal(row, uncut[: len(row)])


def test_columns_of_tokens_reach_the_batch(base) -> None:
    columns = ("segment", "token_weight", "differs")
    examples = [
        tokenized(row, base, *columns) for row in (ROW, {**ROW, "rejected": " It is bread, wait, salt."})
    ]
    draws = [(Draw(number, 0), example) for number, example in enumerate(examples)]
    batch = Collator(LANGUAGE, columns)(draws).columns
    index = max(len(cell.response) for example in examples for cell in example.cells)
    assert {name: values.dtype for name, values in batch.items()} == {
        "segment": torch.int64,
        "token_weight": torch.float32,
        "differs": torch.bool,
    }
    for name, values in batch.items():
        assert values.shape == (2, 2, index)
        for e, example in enumerate(examples):
            for r, row in enumerate(example.columns[name]):
                assert values[e, r, : len(row)].tolist() == row.tolist()


def test_later_spans_count_where_they_overlap(base) -> None:
    spans = [{"start": 0, "end": 23, "weight": 2}, {"start": 7, "end": 12, "weight": 5}]
    example = tokenized({**ROW, "chosen_spans": spans}, base, "token_weight")
    assert covered(example, "token_weight", 0, base, 5) == " Paris"


def test_characters_of_several_bytes(base) -> None:
    text = " señor – ja"
    at = text.index("–")
    row = {**ROW, "chosen": text, "chosen_spans": [{"start": at, "end": at + 1, "segment": 1}]}
    assert covered(tokenized(row, base, "segment"), "segment", 0, base, 1).strip() == "–"


@settings(max_examples=60, deadline=None)
@given(
    text=st.sampled_from(TEXTS),
    start=st.integers(0, 60),
    length=st.integers(1, 40),
    form=st.sampled_from(["plain", "chat"]),
)
def test_tokens_of_a_span_are_those_that_it_touches(text, start, length, form, base, chatml) -> None:
    end = min(start + length, len(text))
    if not text[start:end].strip():
        return
    row = {**ROW, "chosen": text, "chosen_spans": [{"start": start, "end": end, "segment": 1}]}
    tokenizer = base if form == "plain" else chatml
    example = tokenized(row if form == "plain" else conversation(row), tokenizer, "segment")
    found = covered(example, "segment", 0, tokenizer, 1)
    assert text[start:end].strip() in found
    assert len(found.split()) <= len(text[start:end].split()) + 2


BAD = [
    ({"start": 7, "end": 99, "segment": 1}, r"chosen_spans\[0\]'.*from 7 to 99.*from 0 to 24"),
    ({"start": 9, "end": 9, "segment": 1}, "it reaches from 9 to 9"),
    ({"start": 1, "end": 3}, "nothing is known of the part.*segment, step, weight"),
    ({"start": 1, "end": 3, "segment": 0}, r"segment'.*at least 1"),
    ({"start": 1.5, "end": 3, "segment": 1}, r"start'.*found 1.5"),
    ({"start": 1, "end": 3, "weight": "much"}, r"weight'.*a number"),
    ({"turn": 2, "segment": 1}, "at most 1, the turns of the assistant"),
    ("Paris", "found str. Expected an object"),
]


@pytest.mark.parametrize(("span", "message"), BAD)
def test_spans_that_make_no_sense_are_explained(span: Any, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        load_examples([{**ROW, "chosen_spans": [span]}])


def test_one_annotated_response_is_enough_and_none_is_not(base) -> None:
    alone = {name: value for name, value in ROW.items() if name != "rejected_spans"}
    assert not tokenized(alone, base, "segment").columns["segment"][1].any()
    bare = {**ROW, "chosen_spans": [], "rejected_spans": []}
    with pytest.raises(PreferoError, match=r"needs the column 'segment'.*chosen_spans"):
        tokenized(bare, base, "segment")


class TestDifferences:
    def test_a_replaced_token_is_marked_on_both_sides(self) -> None:
        chosen, rejected = differing_tokens([1, 9, 3, 4], [1, 2, 3, 4])
        assert chosen.tolist() == rejected.tolist() == [False, True, False, False]

    def test_function_words_are_never_marked(self) -> None:
        chosen, rejected = differing_tokens([1, 9, 3, 4], [1, 2, 3, 4], never={2, 9})
        assert not chosen.any()
        assert not rejected.any()

    def test_equal_responses_do_not_differ(self) -> None:
        assert not np.concatenate(differing_tokens([1, 2, 3], [1, 2, 3])).any()

    @given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
    def test_what_is_not_marked_is_common_to_both(self, one: list[int], other: list[int]) -> None:
        first, second = differing_tokens(one, other)
        kept = [t for t, mark in zip(one, first, strict=True) if not mark]
        assert kept == [t for t, mark in zip(other, second, strict=True) if not mark]

    def test_long_responses_are_not_junk(self) -> None:
        """The library's heuristic for popular elements sets in at 200 and would mark everything."""
        common = [1, 2] * 150
        chosen, rejected = differing_tokens([*common, 7], [*common, 8])
        assert chosen.sum() == rejected.sum() == 1

    def test_the_column_needs_no_annotation(self, base) -> None:
        row = {"prompt": "p", "chosen": " It is the quick fox", "rejected": " It is a lazy fox"}
        example = tokenized(row, base, "differs")
        assert covered(example, "differs", 0, base, True).strip() == "quick"
        assert covered(example, "differs", 1, base, True).strip() == "lazy"

    def test_words_as_spans(self) -> None:
        chosen, rejected = differing_spans("the big red ball rolls", "the big blue ball rolls on")
        assert chosen == (Span(8, 11, "segment", 1),)
        assert rejected == (Span(8, 12, "segment", 1), Span(24, 26, "segment", 2))

    def test_unmarked_pairs_can_be_marked(self, chatml) -> None:
        row = {name: value for name, value in ROW.items() if "spans" not in name}
        marked = [mark_differences(example) for example in load_examples([conversation(row)])]
        (example,) = tokenize(marked, chatml, roles=PAIR, columns=("segment",))
        assert covered(example, "segment", 0, chatml, 1) == " Paris, of course"
        assert covered(example, "segment", 1, chatml, 1) == " bread"
        with pytest.raises(PreferoError, match="no pair"):
            mark_differences(load_examples([{"prompt": "p", "completion": "a", "label": True}])[0])
