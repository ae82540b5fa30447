"""Responses in further roles and other prompts to the same responses, from rows to cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest

from prefero.data.formats import load_examples
from prefero.data.schema import OTHER_PROMPTS, OTHER_RESPONSES
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
from prefero.objectives import Method, dry_run, method, methods
from tests.training.tiny import tiny_tokenizer

ROW = {"prompt": "a b", "chosen": " c d", "rejected": " e", "gold": " f g h", "prompt_corrupted": "u v w"}


def test_a_further_response_stands_in_its_role_with_its_own_numbers() -> None:
    (example,) = load_examples([{**ROW, "chosen_score": 2, "rejected_score": 1, "gold_score": 5}])
    assert example.roles == ("chosen", "rejected", "gold")
    assert [response.columns["score"] for response in example.responses] == [2, 1, 5]


def test_a_further_response_need_not_have_a_number() -> None:
    (example,) = load_examples([{**ROW, "chosen_score": 2, "rejected_score": 1}])
    assert [response.columns.get("score") for response in example.responses] == [2, 1, None]


def test_fields_of_those_names_that_are_no_text_are_something_else() -> None:
    (example,) = load_examples([{"prompt": "a", "chosen": " c", "rejected": " d", "sample": 7, "gold": None}])
    assert example.roles == ("chosen", "rejected")


def test_text_beside_conversations_is_a_message() -> None:
    said = {"role": "assistant", "content": "c"}
    row = {
        "prompt": [{"role": "user", "content": "a"}],
        "chosen": [said],
        "rejected": [{**said, "content": "d"}],
        "gold": "f",
        "prompt_corrupted": "u",
    }
    (example,) = load_examples([row])
    assert example.responses[2].content == ({"role": "assistant", "content": "f"},)
    assert example.prompts["corrupted"] == ({"role": "user", "content": "u"},)


def ids(words: str) -> list[int]:
    return tiny_tokenizer()(words)["input_ids"]


def test_a_view_has_the_responses_that_are_read_there_under_its_prompt() -> None:
    data = tokenize(
        load_examples([ROW]),
        tiny_tokenizer(),
        roles=("rejected", "gold"),
        views={"corrupted": ("gold",)},
    )
    (cell,) = data[0].views["corrupted"]
    assert cell.context.tolist() == ids("u v w")
    assert cell.response.tolist() == data[0].cells[1].response.tolist()
    assert cell.response.tolist()[:3] == ids("f g h")


def test_a_view_is_truncated_by_itself() -> None:
    data = tokenize(
        load_examples([{**ROW, "prompt_corrupted": "u v w u v w u v w"}]),
        tiny_tokenizer(),
        roles=("chosen", "rejected"),
        views={"corrupted": ("chosen",)},
        max_length=6,
        too_long="keep_recent_prompt",
    )
    (cell,) = data[0].views["corrupted"]
    assert len(cell.context) + len(cell.response) == 6
    assert cell.context.tolist() == ids("u v w")
    assert data[0].cells[0].context.tolist() == ids("a b")


@pytest.mark.parametrize("view", OTHER_PROMPTS)
def test_a_missing_prompt_is_named_with_its_field(view: str) -> None:
    row = {name: value for name, value in ROW.items() if not name.startswith("prompt_")}
    with pytest.raises(
        PreferoError, match=f"row 1: method 'mdpo' reads .* in the field '{OTHER_PROMPTS[view].field}'"
    ):
        tokenize(
            load_examples([row]),
            tiny_tokenizer(),
            roles=("chosen", "rejected"),
            views={view: ("chosen",)},
            for_method="mdpo",
        )


def every_choice(method: Method) -> Iterator[dict[str, Any]]:
    """The defaults, and every argument of few values at each of them."""
    yield {}
    for name, one in method.parameters.items():
        values = (False, True) if one.kind is bool else get_args(one.kind)
        if get_origin(one.kind) is Literal or one.kind is bool:
            yield from ({name: value} for value in values if value != one.default)


def test_every_part_is_read_by_a_method_and_every_response_that_one_reads_is_a_part() -> None:
    needs = [dry_run(one.build(**chosen)) for one in methods().values() for chosen in every_choice(one)]
    assert set(OTHER_RESPONSES) == {role for one in needs for role in one.roles} - {"chosen", "rejected"}
    assert set(OTHER_PROMPTS) <= {view for one in needs for view in one.views}


def test_several_samples_of_a_prompt_are_read_from_fields_of_their_own() -> None:
    row = {**ROW, "sample_1": " f g", "sample_2": " h"}
    needs = dry_run(method("hypo", samples=2, baseline="leave_one_out"))
    data = tokenize(load_examples([row]), tiny_tokenizer(), roles=needs.roles)
    assert data.roles == ("chosen", "rejected", "sample_1", "sample_2")
    with pytest.raises(PreferoError, match=r"'sample_3' \(one of several responses drawn"):
        tokenize(load_examples([row]), tiny_tokenizer(), roles=(*needs.roles, "sample_3"))
