"""Marks that a row brings along with its text: end marks, headers, and texts that a template has written."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import decoders

from prefero.data.chat import Writing
from prefero.data.examples import Example, Message, Response, Text
from prefero.data.templates import template_text
from prefero.data.tokenize import TokenDataset, tokenize
from prefero.errors import PreferoError
from tests.data.chat_templates import TEMPLATES
from tests.data.tokenizer_kinds import make

ROLES = ("chosen", "rejected")
CHATML = TEMPLATES["chatml"]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: Any, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def tokenizer(
    source: str = CHATML.source, marks: tuple[str, ...] = CHATML.marks, eos: str = CHATML.eos
) -> Any:
    made = make("bytes", marks, eos, source)
    made.backend_tokenizer.decoder = decoders.ByteLevel()
    return made


def read(
    prompt: Text,
    chosen: Any,
    rejected: Any = "Bad.",
    *,
    reader: Any = None,
    template: str = "auto",
    **more: Any,
) -> tuple[str, str, list[str], TokenDataset]:
    """The context and the chosen response as text, the notes, and all of it."""
    reader = tokenizer() if reader is None else reader
    responses = (Response(chosen, "chosen"), Response(rejected, "rejected"))
    example = Example(prompt, responses, origin="rows, row 1", **more)
    data = tokenize([example], reader, roles=ROLES, writing=Writing(template))
    cell = data[0].cells[0]
    return reader.decode(cell.context), reader.decode(cell.response), list(data[0].notes), data


OPENED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "chosen",
    [
        "Yes<|im_end|>",
        "Yes<|im_end|><|im_end|>\n",
        "<|im_start|>assistant\nYes<|im_end|>\n",
        (said("Yes<|im_end|>"),),
        (said([{"type": "text", "text": "Yes<|im_end|>"}]),),
        (said("<|im_start|>assistant\nYes<|im_end|>\n"),),
    ],
)
def test_marks_of_a_response_stand_once(chosen: Any) -> None:
    rejected = "Bad." if isinstance(chosen, str) else (said("Bad."),)
    context, response, notes, _ = read((user("Hi"),), chosen, rejected)
    assert (context, response) == (OPENED, "Yes<|im_end|>")
    assert any("stand once" in note for note in notes)


def test_end_marks_of_earlier_turns_stand_once() -> None:
    context, _, notes, _ = read((user("Hi"), said("Yes<|im_end|>"), user("And?")), "No.")
    assert context.count("Yes<|im_end|>\n") == 1
    assert any("stand once" in note for note in notes)


def test_the_end_token_stands_once_where_no_template_is() -> None:
    reader = tokenizer(None)
    _, response, _, _ = read((user("Hi"),), (said(f"Yes{reader.eos_token}"),), (said("Bad."),), reader=reader)
    assert response == f" Yes{reader.eos_token}"


def test_a_response_that_is_an_end_mark_says_it() -> None:
    _, response, _, _ = read((user("How does a turn end?"),), "<|im_end|>")
    assert response == "<|im_end|><|im_end|>"


def test_what_goes_on_behind_an_end_mark_is_said() -> None:
    _, response, notes, _ = read((user("Hi"),), "Yes<|im_end|> more")
    assert response == "Yes<|im_end|> more<|im_end|>"
    assert any("goes on behind an end mark" in note for note in notes)


@pytest.mark.parametrize("chosen", ["Yes", (said("Yes"),), "<|im_start|>assistant\nYes<|im_end|>\n"])
@pytest.mark.parametrize(
    "prompt", [OPENED, "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|>user\nHi<|im_end|>"]
)
def test_a_prompt_that_the_template_has_written_is_not_written_again(prompt: str, chosen: Any) -> None:
    context, response, notes, _ = read(prompt, chosen, "Bad." if isinstance(chosen, str) else (said("Bad."),))
    assert (context, response) == (OPENED, "Yes<|im_end|>")
    assert any("taken as it is" in note for note in notes)
    assert any("header of an answer is added" in note for note in notes) == (prompt != OPENED)


@pytest.mark.parametrize(
    "prompt", ["What does <|im_start|> mean?", "Write <|im_end|>", "<b> or <|im_start|>?"]
)
def test_a_question_that_speaks_of_a_mark_is_a_turn_of_the_user(prompt: str) -> None:
    context, response, notes, _ = read(prompt, "A mark.")
    assert (context, response) == (OPENED.replace("Hi", prompt), "A mark.<|im_end|>")
    assert not any("taken as it is" in note and "marks" in note for note in notes)
    assert any("but not those around a turn" in note for note in notes)


def test_a_text_before_the_first_mark_does_not_hide_what_the_template_has_written() -> None:
    before = "Be brief.\n"
    context, response, notes, _ = read(f"{before}<|im_start|>user\nHi<|im_end|>\n", "Yes")
    assert (context, response) == (before + OPENED, "Yes<|im_end|>")
    assert any("taken as it is" in note for note in notes)


def test_what_a_template_has_written_may_end_with_another_mark() -> None:
    made = TEMPLATES["another end, and one of the text"]
    reader = tokenizer(made.source, made.marks, made.eos)
    written = reader.apply_chat_template([user("Hi")], tokenize=False, add_generation_prompt=True)
    context, response, _, _ = read(written, "Yes", reader=reader)
    assert (context, response) == (written, "Yes<|end|>")


@pytest.mark.parametrize("mark", ["</s>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end|>"])
@pytest.mark.parametrize("template", ["auto", "none"])
def test_the_end_mark_of_another_family_is_said(mark: str, template: str) -> None:
    for prompt, chosen, rejected in (
        ((user("Hi"),), f"Yes{mark}", "Bad."),
        ((user("Hi"),), (said(f"Yes{mark}"),), (said("Bad."),)),
        (OPENED, f"Yes{mark}", "Bad."),
    ):
        _, response, notes, _ = read(prompt, chosen, rejected, template=template)
        assert f"Yes{mark}" in response
        assert f"a response holds {mark}, which does not end turns of this model and is kept" in notes
    _, _, notes, _ = read((user("Hi"),), "Yes<|im_end|>")
    assert not any("a response holds" in note for note in notes)


def test_a_written_prompt_with_responses_that_are_no_text_is_refused() -> None:
    with pytest.raises(PreferoError, match=r"row 1: the prompt holds marks .* more than one text"):
        read(OPENED, (said("Yes"), user("And?"), said("No")), (said("Bad."),))


def test_a_written_message_is_refused() -> None:
    with pytest.raises(PreferoError, match=r"row 1: a message of user begins with marks"):
        read(({"role": "system", "content": "Be kind."}, user(OPENED)), "Yes")


def test_tools_and_arguments_of_a_row_whose_text_is_taken_are_said() -> None:
    _, _, notes, _ = read(OPENED, "Yes", tools=(TOOL,), template_options={"enable_thinking": False})
    assert any("tools of the row are not written" in note for note in notes)
    assert any("chat_template_kwargs of the row are not used" in note for note in notes)


def test_an_argument_that_the_template_does_not_know_is_said() -> None:
    _, _, notes, _ = read((user("Hi"),), "Yes", template_options={"enable_thinkng": False})
    assert any("knows no argument 'enable_thinkng'" in note for note in notes)


def test_a_turn_that_the_template_drops_is_said() -> None:
    kept = "{% for m in messages if m.role != 'developer' %}"
    reader = tokenizer(CHATML.source.replace("{% for m in messages %}", kept))
    context, _, notes, _ = read(
        ({"role": "developer", "content": "Be kind."}, user("Hi")), "Yes", reader=reader
    )
    assert "Be kind." not in context
    assert any("leaves out or changes what a turn of developer says" in note for note in notes)


def test_a_call_behind_a_thought_that_the_prompt_opens_is_kept() -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}"
        "{% for call in m.tool_calls or [] %}<call>{{ call.function.arguments | tojson }}</call>{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    reader = tokenizer(source)
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": n}}} for n in (1, 2)]
    turns = [(said("<think>\nhm\n</think>\n\nSure.", tool_calls=[call]),) for call in calls]
    _, response, _, _ = read((user("Hi"),), *turns, reader=reader, tools=(TOOL,))
    assert '<call>{"a": 1}</call>' in response


def test_a_turn_that_ends_with_another_mark_is_scored() -> None:
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for call in m.tool_calls or [] %}"
        "{{ call.function.name }}{% endfor %}{{ '<|eom|>' if m.tool_calls else '<|eot|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    marks = ("<|user|>", "<|assistant|>", "<|tool|>", "<|eom|>", "<|eot|>")
    reader = tokenizer(source, marks, "<|eot|>")
    call = said("", tool_calls=[{"type": "function", "function": {"name": "add", "arguments": {}}}])
    loop = (call, {"role": "tool", "content": "2"}, said("Two"))
    _, _, _, data = read((user("Hi"),), loop, (said("No"),), reader=reader)
    cell = data[0].cells[0]
    assert cell.scored is not None
    assert reader.decode(cell.response[cell.scored]) == "add<|eom|>Two<|eot|>"
    _, response, _, _ = read((user("Hi"),), (call,), (said("No"),), reader=reader)
    assert response == "add<|eom|>"


def test_a_thought_begun_in_the_prompt_that_the_template_rewrites_is_refused() -> None:
    reader = tokenizer(template_text("qwen3"))
    with pytest.raises(PreferoError, match=r"row 1: the chat template changes earlier turns"):
        read((user("Hi"), said("<think>\nx")), "y\n</think>\n\nYes", "z\n</think>\n\nNo", reader=reader)
