"""Responses in further roles and other prompts to the same responses, from rows to cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import pytest

from prefero.data.examples import Example, Response
from prefero.data.formats import load_examples
from prefero.data.schema import OTHER_PROMPTS, OTHER_RESPONSES
from prefero.data.tokenize import tokenize
from prefero.data.trie import Cell
from prefero.errors import PreferoError
from prefero.objectives import Method, dry_run, method, methods
from tests.training.tiny import tiny_tokenizer

ROLES = ("chosen", "rejected")

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


# Prompts of different kinds

HEADER = "<|im_start|>assistant\n"
WRITTEN = {name: f"<|im_start|>user\n{name}<|im_end|>\n{HEADER}" for name in ("Hi", "Bye")}
FORMS: dict[str, Callable[[str], Any]] = {
    "plain": lambda name: name,
    "written": lambda name: WRITTEN[name],
    "messages": lambda name: ({"role": "user", "content": name},),
}


def row_of(prompt: Any, **parts: Any) -> Example:
    return Example(prompt, (Response("Yes", "chosen"), Response("No", "rejected")), origin="row 1", **parts)


def texts(tokenizer: Any, cells: Sequence[Cell]) -> list[tuple[str, str]]:
    return [(tokenizer.decode(cell.context), tokenizer.decode(cell.response)) for cell in cells]


@pytest.mark.parametrize("other", FORMS)
@pytest.mark.parametrize("own", FORMS)
def test_each_prompt_is_written_in_the_way_that_it_asks_for(own: str, other: str, chatml: Any) -> None:
    example = row_of(FORMS[own]("Hi"), prompts={"corrupted": FORMS[other]("Bye")})
    tokens = tokenize([example], chatml, roles=ROLES, views={"corrupted": ROLES})[0]
    for cells, name in ((tokens.cells, "Hi"), (tokens.views["corrupted"], "Bye")):
        assert texts(chatml, cells) == [(WRITTEN[name], f"{said}<|im_end|>") for said in ("Yes", "No")]
    example = row_of(FORMS[own]("Hi"))
    chosen, rejected = example.responses
    example = replace(example, responses=(chosen, replace(rejected, prompt=FORMS[other]("Bye"))))
    cells = tokenize([example], chatml, roles=ROLES)[0].cells
    assert texts(chatml, cells) == [(WRITTEN["Hi"], "Yes<|im_end|>"), (WRITTEN["Bye"], "No<|im_end|>")]


def test_prompts_of_two_kinds_without_a_template(base: Any) -> None:
    example = row_of("Hi:", prompts={"corrupted": FORMS["messages"]("Bye")})
    tokens = tokenize([example], base, roles=ROLES, views={"corrupted": ROLES})[0]
    assert texts(base, tokens.cells)[0] == ("<s>Hi:", "Yes</s>")
    turns = "<s>\n\nHuman: Bye\n\nAssistant:"
    assert texts(base, tokens.views["corrupted"]) == [(turns, " Yes</s>"), (turns, " No</s>")]


def test_a_response_that_meets_another_prompt_otherwise_has_the_tokens_of_that_text(base: Any) -> None:
    example = row_of("Name: ", prompts={"corrupted": "Noun:"})
    example = replace(example, responses=(Response("The fox", "chosen"), Response("It is", "rejected")))
    tokens = tokenize([example], base, roles=ROLES, views={"corrupted": ROLES})[0]
    for cell, said in zip(tokens.views["corrupted"], ("The fox", "It is"), strict=True):
        ids = [*base(f"Noun:{said}")["input_ids"], base.eos_token_id]
        assert [*cell.context, *cell.response] == ids
    for cell, said in zip(tokens.cells, ("The fox", "It is"), strict=True):
        assert [*cell.context, *cell.response] == [*base(f"Name: {said}")["input_ids"], base.eos_token_id]
    assert tokens.notes == (
        "prompt_corrupted: responses are other tokens behind it than behind the row's own prompt",
    )


def test_a_prompt_of_a_view_that_is_cut_is_counted_and_said() -> None:
    data = tokenize(
        load_examples([{**ROW, "prompt_corrupted": "u v w u v w u v w"}]),
        tiny_tokenizer(),
        roles=ROLES,
        views={"corrupted": ("chosen",)},
        max_length=6,
        too_long="keep_recent_prompt",
    )
    note = "prompt_corrupted: the prompt was cut: it lost 6 tokens to fit max_length = 6"
    assert data[0].notes == (note,)
    assert data[0].truncated == data.summary.truncated_tokens == 6
    assert (data.summary.truncated_prompts, data.summary.truncated_responses) == (1, 0)
