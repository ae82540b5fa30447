"""Responses in further roles and other prompts to the same responses, from rows to cells."""

from __future__ import annotations

import pytest

from prefero.data.formats import load_examples
from prefero.data.schema import OTHER_PROMPTS, OTHER_RESPONSES
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
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


def test_every_part_is_read_by_a_method() -> None:
    from prefero.objectives import dry_run, methods

    needs = [dry_run(method.build()) for method in methods().values()]
    assert set(OTHER_RESPONSES) == {role for one in needs for role in one.roles} - {"chosen", "rejected"}
    assert set(OTHER_PROMPTS) <= {view for one in needs for view in one.views}
