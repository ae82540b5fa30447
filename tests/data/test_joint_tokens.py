"""The trained tokens are those of the text that the model reads, whatever the tokenizer and the template.

Said again here without the code under test: the text is the template's own rendering of prompt and response;
its ids are the tokenizer's ids of it as a whole; a token is scored where it has a character of what the
assistant says in the response, end mark included; the sides share the prompt up to the first token with a
character of any response. A row for which that cannot be is refused by its name and a reason.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product, takewhile
from typing import Any

import pytest
from transformers import CLIPImageProcessorPil, LlavaProcessor

from prefero.data.chat import Writing
from prefero.data.examples import Example, Message, Response, Text
from prefero.data.images import ImagePrompts
from prefero.data.pictures import Picture
from prefero.data.preview import origin_of_template
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
from tests.data.chat_templates import TEMPLATES, Template
from tests.data.tokenizer_kinds import KINDS, SLOW, characters, make
from tests.vision import image

ROLES = ("chosen", "rejected")


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def said(content: Any, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def result(content: str) -> Message:
    return {"role": "tool", "content": content}


def call(name: str, **arguments: Any) -> Message:
    return said("", tool_calls=[{"type": "function", "function": {"name": name, "arguments": arguments}}])


SYSTEM = {"role": "system", "content": "Be kind."}

ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}


def pair(prompt: Text | list[Message], chosen: Any, rejected: Any, **more: Any) -> Example:
    sides = (tuple(side) if isinstance(side, list) else side for side in (chosen, rejected))
    responses = tuple(Response(side, role) for side, role in zip(sides, ROLES, strict=True))
    prompt = tuple(prompt) if isinstance(prompt, list) else prompt
    return Example(prompt, responses, origin="rows, row 1", **more)


def cut_off(example: Example) -> Example:
    chosen, rejected = example.responses
    return replace(example, responses=(replace(chosen, ended=False), rejected))


def with_own_prompt(example: Example, prompt: tuple[Message, ...]) -> Example:
    chosen, rejected = example.responses
    return replace(example, responses=(chosen, replace(rejected, prompt=prompt)))


TURNS = [user("What is the capital of France?"), said("Paris."), user("And of Italy?")]

CONVERSATIONS = {
    "one turn": pair([user("Name a fruit.")], [said("An apple.")], [said("The dog.")]),
    "texts": pair("Name a fruit.", "An apple.", "Apples"),
    "texts that end themselves": pair("Name a fruit.", "An apple.</s>", "Apples</s> \n"),
    "a text without a question": pair("", "An apple.", "It is"),
    "text as a response": pair([user("Name a fruit.")], "An apple.", " An apple."),
    "system": pair([SYSTEM, user("Hi")], [said("Hello!")], [said("No")]),
    "several turns before": pair([SYSTEM, *TURNS], [said("Rome, of course.")], [said("Milan?")]),
    "spaces around": pair([user("  Hi \n")], [said("  Hello  ")], [said("\n\nHello\n")]),
    "line ends": pair([user("\nHi\n\n")], [said("\n")], [said("   ")]),
    "an empty response": pair([user("Hi")], [said("")], [said("No")]),
    "an empty question": pair([user("")], [said("Yes")], [said("No")]),
    "unicode": pair(
        [user("Ça va? 你好 🙂")], [said("e\u0301te\u0301, \u0301a 🙂🙂 你")], [said("🙃 \u200dñ世界\u0301")]
    ),
    "what ends a mark": pair([user("2+2=")], [said("e")], [said("im")]),
    "marks, begun": pair([user("<|im_start")], [said("<|im_end")], [said("[/INST")]),
    "marks": pair([user("What ends a turn?")], [said("<|im_end|> does.")], [said("It is </s>.")]),
    "begins as prompts end": pair(
        [user("assistant\n")], [said("assistant\nassistant\n")], [said("\nASSISTANT It is")]
    ),
    "a common beginning": pair([user("Hi")], [said("Hello you")], [said("Hello you too")]),
    "tool loop": pair(
        [user("2+2=")],
        [said("I add."), result("4"), said("It is 4.")],
        [said("I guess."), result("5"), said("It is 5.")],
    ),
    "calls": pair(
        [user("2+2=")],
        [call("add", a=2, b=2), result("4"), said("It is 4.")],
        [said("It is 5.")],
        tools=(ADD,),
    ),
    "dialogue": pair([user("Hi")], [said("e"), user("im"), said("e")], [said("im")]),
    "another begins": pair(
        [user("Hi"), said("Hello")], [user("Name a fruit."), said("An apple.")], [user("2+2="), said("4")]
    ),
    "dialogue with spaces": pair(
        [user("Hi")], [said("Yes "), user(" Hm \n"), said("\n")], [said(" No\n\n"), user(""), said("")]
    ),
    "dialogue of marks": pair(
        [user("Hi")],
        [said("<|im_end|>\n"), user("<|im_start|>assistant\n"), said("</s>")],
        [said("</s>"), user("[INST] ASSISTANT: Bot: [assistant]"), said("<|eot_id|>")],
    ),
    "a thought that goes on": pair([user("2+2=")], [said("Easy.\n</think>\n\n4")], [said("Hm.</think>5")]),
    "a thought, cut off": cut_off(
        pair(
            [user("2+2=")], [said("<think>\nEasy.\n</think>\n\nIt is")], [said("<think>\nHm.\n</think>\n\n5")]
        )
    ),
    "thoughts": pair([user("2+2=")], [said("<think>\nEasy.\n</think>\n\n4")], [said("5")]),
    "two thoughts": pair([user("2+2=")], "<think>\nEasy.\n</think>\n\n4", "<think>\nHm.\n</think>\n\n5"),
    "thoughts apart": pair(
        [user("2+2=")], [said("4", reasoning_content="Easy.")], [said("5", reasoning_content="Hm.")]
    ),
    "earlier thoughts": pair(
        [user("2+2="), said("<think>\nEasy.\n</think>\n\n4"), user("And 3+3?")], [said("6")], [said("7")]
    ),
    "parts": pair(
        [user([{"type": "text", "text": "Name "}, {"type": "text", "text": "one."}])],
        [said([{"type": "text", "text": "An apple."}])],
        [said("One.")],
    ),
    "cut off": cut_off(pair([user("Name a fruit.")], [said("An app")], [said("One.")])),
    "cut off behind a space": cut_off(pair([SYSTEM, *TURNS], [said("It is ")], [said("It is Rome.")])),
    "continued": pair([user("Name a fruit."), said("It is an")], " apple.", "other"),
    "continued behind a space": pair([user("Name a fruit."), said("It is ")], "an apple.", " the"),
    "parts, continued": pair(
        [user("Name a fruit."), said([{"type": "text", "text": "It is"}])], " an apple.", " one"
    ),
    "continued within a word": pair([user("Say it."), said("Pari")], "s.", "sian"),
    "continued, cut off": cut_off(pair([user("2+2=?"), said("Step 1")], ": 2", " of the")),
    "own prompts": with_own_prompt(
        pair([user("Hi")], [said("Hello")], [said("Hello")]), (user("Hi"), said("Hm"), user("Name a fruit."))
    ),
}


# What is right


@dataclass(frozen=True)
class Side:
    """A side as it has to be: its ids, those that are scored, the place of the response's first token."""

    ids: list[int]
    scored: list[bool]
    first: int


class Refused(Exception):
    """The template itself does not write the row."""


def in_text(turn: Message) -> Message:
    content = turn["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    return {**turn, "content": content}


def right_text(
    template: Template, tokenizer: Any, example: Example, response: Response
) -> tuple[str, int, list[tuple[int, int]], bool]:
    """The text, where the response begins, the ranges that are scored, and whether an end token follows."""

    def render(turns: list[Message], **options: Any) -> tuple[str, list[tuple[int, int]]]:
        written = [dict(in_text(turn)) for turn in turns]
        try:
            return template.render(tokenizer, written, tools=list(example.tools) or None, **options)
        except Exception as error:
            raise Refused(str(error)) from error

    prompt = example.prompt if response.prompt is None else response.prompt
    before = [user(prompt)] if isinstance(prompt, str) else list(prompt)
    content = response.content
    added = [said(content)] if isinstance(content, str) else list(content)
    closing = template.closing
    opening = None
    if before and before[-1]["role"] == "assistant" and isinstance(content, str):
        unended, turns = render(before)
        start = turns[-1][1] - len(closing)
        opening = unended[:start]
        added = [{**before[-1], "content": in_text(before[-1])["content"] + content}]
        before = before[:-1]
        text, ranges = render(before + added)
        if not text.startswith(opening):
            raise Refused("the prompt is written otherwise when it goes on")
        ranges = [(start, ranges[-1][1])]
    else:
        text, ranges = render(before + added)
        ranges = ranges[len(ranges) - sum(turn["role"] == "assistant" for turn in added) :]
        is_open = added[0]["role"] == "assistant"
        asked = render(before, add_generation_prompt=is_open)[0]
        if not text.startswith(asked.removesuffix(template.opens)):
            raise Refused("the prompt is written otherwise when an answer follows")
        start = len(asked) if text.startswith(asked) else ranges[0][0]
        answer = in_text(added[0])["content"]
        if template.opens and len(added) == 1 and "</think>" in answer:
            # the model goes on behind the thought that the prompt opens; the template would drop it
            text = asked + answer.removeprefix(template.opens) + closing
            start, ranges = len(asked), [(len(asked), len(text))]
        ranges[0] = (max(ranges[0][0], start), ranges[0][1])
    stop = ranges[-1][1] - (0 if response.ended else len(closing))
    ranges[-1] = (ranges[-1][0], stop)
    text = text[:stop]
    if template is PLAIN and content.rstrip().endswith(tokenizer.eos_token):  # text may end itself
        return text.rstrip(), start, ranges, False
    return text, start, ranges, response.ended and not template.has_end


def right_side(
    template: Template, tokenizer: Any, example: Example, response: Response, starts: bool
) -> Side:
    text, start, ranges, ended = right_text(template, tokenizer, example, response)
    ids, places = characters(tokenizer, text)
    assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    scored = [any(max(low, begin) < min(high, stop) for low, high in ranges) for begin, stop in places]
    first = next((at for at, (_, stop) in enumerate(places) if stop > start), len(ids))
    if ended:
        ids, scored = [*ids, tokenizer.eos_token_id], [*scored, True]
    if not any(scored):
        raise Refused("nothing is scored")
    if starts and not text.startswith(tokenizer.bos_token or "\0") and tokenizer.bos_token:
        ids, scored, first = [tokenizer.bos_token_id, *ids], [False, *scored], first + 1
    return Side(ids, scored, first)


def shared(sides: list[Side]) -> int:
    """The tokens that the sides share before any response."""
    same = takewhile(lambda ids: len({*ids}) == 1, zip(*(side.ids for side in sides), strict=False))
    return min([*(side.first for side in sides), len(list(same))])


def wrong(
    kind: str, template: Template, example: Example, *, source: str | None, starts: bool = False
) -> Iterator[str]:
    """The ways in which an example is trained otherwise than is right; none, if it is refused with reason."""
    tokenizer = make(kind, template.marks, template.eos, source)
    try:
        right = [right_side(template, tokenizer, example, response, starts) for response in example.responses]
    except Refused:
        right = []
    try:
        (row,) = tokenize([example], tokenizer, roles=ROLES)
    except PreferoError as error:
        several = any(isinstance(r.content, tuple) and len(r.content) > 1 for r in example.responses)
        same = right and right[0].ids == right[1].ids
        if "row 1" not in str(error):
            yield f"refused without its name: {error}"
        unclear = not tokenizer.is_fast and "its unknown token is made of" in str(error)
        if right and not same and not unclear and not (template.forgets and several):
            yield f"refused: {error}"
        return
    if not right:
        yield "read, though the template refuses it"
        return
    own = [side for side, response in zip(right, example.responses, strict=True) if response.prompt is None]
    for cell, side, response in zip(row.cells, right, example.responses, strict=True):
        ids = [*cell.context.tolist(), *cell.response.tolist()]
        scored = [True] * len(cell.response) if cell.scored is None else cell.scored.tolist()
        length = shared(own if response.prompt is None else [side])
        right_ids, right_scored = side.ids, side.scored
        if not length:  # something has to stand before the first scored token
            beginning = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
            length, right_ids, right_scored = 1, [beginning, *side.ids], [False, *side.scored]
        if ids != right_ids:
            yield f"ids of {tokenizer.decode(ids)!r}, not of {tokenizer.decode(right_ids)!r}"
        elif len(cell.context) != length:
            yield f"a context of {len(cell.context)} tokens, not {length}"
        elif [False] * len(cell.context) + scored != right_scored:
            yield f"scored {scored}, not {right_scored[length:]} of {tokenizer.convert_ids_to_tokens(ids)}"
    contexts = {id(c.context) for c, r in zip(row.cells, example.responses, strict=True) if r.prompt is None}
    if len(contexts) != 1:
        yield "two contexts of one prompt"


TRANSCRIPT = Template(
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '\n\nAssistant:' }}"
    "{% generation %}{% if m.content %} {{ m.content }}{% endif %}{% endgeneration %}"
    "{% elif m.role == 'system' and loop.first %}{{ m.content }}"
    "{% else %}{{ '\n\n' }}{{ 'Human' if m.role == 'user' else m.role | capitalize }}: {{ m.content }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}",
    "",
)
"""Conversations for a tokenizer without a template."""

PLAIN = Template(
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "",
)
"""Text for a tokenizer without a template."""


def wrong_without_template(kind: str, name: str) -> list[str]:
    example = CONVERSATIONS[name]
    if example.tools:
        return []
    is_text = isinstance(example.prompt, str)
    found = wrong(kind, PLAIN if is_text else TRANSCRIPT, example, source=None, starts=True)
    return [f"{kind}, no template, {name}: {problem}" for problem in found]


def wrong_with(kind: str, template: str, name: str) -> list[str]:
    if name == "texts that end themselves":
        return []  # not the template's own rendering: the end mark stands once
    spec = TEMPLATES[template]
    found = wrong(kind, spec, CONVERSATIONS[name], source=spec.source)
    return [f"{kind}, {template}, {name}: {problem}" for problem in found]


def drawn(*axes: list[str], count: int) -> list[tuple[str, ...]]:
    """Combinations in which every value of every axis stands equally often, give or take one."""
    draw = random.Random(11)
    columns: list[list[str]] = []
    for axis in axes:
        column: list[str] = []
        while len(column) < count:
            column += draw.sample(axis, len(axis))
        columns.append(column[:count])
    return list(zip(*columns, strict=True))


ALL = (list(KINDS), list(TEMPLATES), list(CONVERSATIONS))


def test_there_are_enough_of_them() -> None:
    assert (len(KINDS), len(TEMPLATES), len(CONVERSATIONS)) >= (25, 12, 15)


def test_a_drawn_sample_is_the_joint_text() -> None:
    assert [problem for some in drawn(*ALL, count=350) for problem in wrong_with(*some)] == []


def test_a_drawn_sample_without_a_template() -> None:
    sample = drawn(list(KINDS), list(CONVERSATIONS), count=150)
    assert [problem for some in sample for problem in wrong_without_template(*some)] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_are_the_joint_text(kind: str) -> None:
    problems = [problem for some in product(*ALL[1:]) for problem in wrong_with(kind, *some)]
    problems += [problem for name in CONVERSATIONS for problem in wrong_without_template(kind, name)]
    assert problems == []


# Templates that ask for more than turns


CHATML = TEMPLATES["chatml"]


def sides(tokenizer: Any, example: Example) -> list[tuple[str, str]]:
    """Context and response of each side, read back."""
    (row,) = tokenize([example], tokenizer, roles=ROLES)
    return [(tokenizer.decode(cell.context), tokenizer.decode(cell.response)) for cell in row.cells]


def chatml(source: str, eos: str = "</s>") -> Any:
    return make("letters", CHATML.marks, eos, source)


def joined(found: list[tuple[str, str]]) -> list[str]:
    """The sides without the spaces that a tokenizer of letters puts between them."""
    return [(context + response).replace(" ", "") for context, response in found]


HI = pair([user("Hi")], [said("e")], [said("im")])

ASKED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("needs", "example"),
    [
        ("tools", replace(HI, tools=(ADD,))),
        ("wanted", replace(HI, template_options={"wanted": True})),
        ("messages[0].role == 'system'", replace(HI, prompt=(SYSTEM, *HI.prompt))),
    ],
)
@pytest.mark.parametrize("eos", ["</s>", "<|im_end|>"])
def test_a_template_that_refuses_simple_conversations_ends_once(
    needs: str, example: Example, eos: str
) -> None:
    source = f"{{% if not ({needs}) %}}{{{{ raise_exception('no') }}}}{{% endif %}}{CHATML.source}"
    texts = joined(sides(chatml(source, eos), example))
    assert [text.rpartition("assistant\n")[2] for text in texts] == ["e<|im_end|>", "im<|im_end|>"]
    (cut, _) = joined(sides(chatml(source, eos), cut_off(example)))
    assert cut.endswith("assistant\ne")


def test_a_template_that_needs_documents_is_refused_by_row() -> None:
    source = "{% for document in documents %}{{ document.text }}{% endfor %}" + CHATML.source
    with pytest.raises(PreferoError, match=r"rows, row 1: the chat template refuses .*NoneType.*template"):
        sides(chatml(source), HI)
    shown = replace(HI, template_options={"documents": [{"title": "a", "text": "It is so."}]})
    assert joined(sides(chatml(source), shown))[0] == "Itisso." + ASKED + "e<|im_end|>"


def test_of_several_templates_rows_with_tools_take_the_one_for_tools() -> None:
    tokenizer = chatml("")
    tokenizer.chat_template = {"default": CHATML.source, "tool_use": TEMPLATES["tools"].source}
    assert joined(sides(tokenizer, HI))[0] == ASKED + "e<|im_end|>"
    assert "#Tools" in joined(sides(tokenizer, replace(HI, tools=(ADD,))))[0]
    tokenizer.chat_template = {"rag": CHATML.source}
    with pytest.raises(PreferoError, match="templates by the names rag, and none of them is 'default'"):
        sides(tokenizer, HI)
    (chosen, _) = tokenize([HI], tokenizer, roles=ROLES, writing=Writing("rag"))[0].cells
    assert tokenizer.decode([*chosen.context, *chosen.response]).replace(" ", "") == ASKED + "e<|im_end|>"
    assert origin_of_template(Writing("rag"), tokenizer.chat_template) == "rag (one of the tokenizer's own)"


def test_text_with_the_marks_ends_as_the_template_ends_turns() -> None:
    for name, ends in (("gemma", "<end_of_turn>"), ("vicuna", "</s>"), ("chatml", "<|im_end|>")):
        spec = TEMPLATES[name]
        tokenizer = make("letters", spec.marks, spec.eos, spec.source)
        prompt, _ = spec.render(tokenizer, [user("Hi")], add_generation_prompt=True)
        found = sides(tokenizer, pair(prompt, "e", f"im{ends}\n"))
        assert [response.replace(" ", "") for _, response in found] == [f"e{ends}", f"im{ends}"]
        assert joined(found)[0].count("user" if name != "vicuna" else "USER:") == 1


def test_a_question_about_thoughts_has_not_been_through_the_template() -> None:
    spec = TEMPLATES["thinking"]
    tokenizer = make("letters", (*spec.marks, "<think>", "</think>"), spec.eos, spec.source)
    found = sides(tokenizer, pair("Think in <think>.", "e", "im"))
    assert joined(found)[0].startswith("<|im_start|>user\nThinkin<think>.<|im_end|>")


def test_what_a_template_leaves_out_is_said() -> None:
    example = pair([user("Hi")], [said("<think>Hm</think>e")], [said("im")])
    source = CHATML.source.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
    (row,) = tokenize([example], chatml(source), roles=ROLES)
    assert row.notes == ("the chat template leaves out or changes part of what the response says",)
    assert tokenize([HI], chatml(source), roles=ROLES)[0].notes == ()
    opens = TEMPLATES["opens a thought"]
    tokenizer = make("letters", opens.marks, opens.eos, opens.source)
    assert tokenize([CONVERSATIONS["two thoughts"]], tokenizer, roles=ROLES)[0].notes[1:] == ()


def test_half_a_character_is_refused_by_row() -> None:
    with pytest.raises(PreferoError, match=r"rows, row 1: the text has half a character, '\\ud83d', behind"):
        sides(chatml(CHATML.source), pair([user("Hi \ud83d")], "e", "im"))


def test_a_side_in_which_the_assistant_says_nothing_is_refused() -> None:
    with pytest.raises(PreferoError, match="rows, row 1: a response has no token that the assistant says"):
        sides(chatml(CHATML.source), pair([user("Hi")], [user("e")], [user("im"), said("e")]))


def test_a_prompt_that_is_one_token_or_none() -> None:
    for kind, spec in KINDS.items():
        tokenizer = make(kind)
        for prompt in ("", "a", "\n"):
            (row,) = tokenize([pair(prompt, "e b", "im")], tokenizer, roles=ROLES)
            assert all(len(cell.context) >= 1 for cell in row.cells)
            if spec.bos:
                assert row.cells[0].context[0] == tokenizer.bos_token_id


def test_a_slow_tokenizer_whose_unknown_token_may_reach_into_the_response_is_refused() -> None:
    example = pair([user("Say it."), said("xylo")], "phone", "graph")
    with pytest.raises(PreferoError, match=r"row 1: the tokenizer does not know 'op', where prompt and resp"):
        sides(make(SLOW, CHATML.marks, CHATML.eos, CHATML.source), example)


# Prompts with images


SEES = (
    "{% for m in messages %}{% if m.role == 'assistant' %} ASSISTANT:"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{{ eos_token }}"
    "{% else %}USER: {% for part in m.content %}{% if part.type == 'image' %}<image>\n"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != SLOW])
@pytest.mark.parametrize("asked", ["What is it?", ""])
def test_behind_an_image_too_the_tokens_are_the_joint_text(kind: str, asked: str) -> None:
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        make(kind, ("<image>",)),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=SEES,
    )
    tokenizer, placeholder = processor.tokenizer, processor.tokenizer.convert_tokens_to_ids("<image>")
    shown = user([{"type": "image", "number": 0}, {"type": "text", "text": asked}])
    example = pair([shown], [said("An apple.")], [said("e")])
    example = replace(example, images={"": (Picture(image(0)),)})
    images = ImagePrompts(processor, placeholder)
    (row,) = tokenize([example], tokenizer, roles=ROLES, images=images)
    assert row.cells[0].context is row.cells[1].context
    prompt = f"USER: <image>\n{asked} ASSISTANT:"
    for cell, answer in zip(row.cells, ("An apple.", "e"), strict=True):
        text = f"{prompt}{answer}</s>"
        ids = [*cell.context.tolist(), *cell.response.tolist()]
        right = processor(text=[text], images=[[image(0)]], add_special_tokens=False)["input_ids"][0]
        assert [placeholder if token < 0 else token for token in ids] == right
        scored = len(cell.response) if cell.scored is None else int(cell.scored.sum())
        assert scored == sum(stop > len(prompt) for _, stop in characters(tokenizer, text)[1])
