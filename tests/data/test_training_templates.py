"""Training templates write the text of models' own templates, keep turns, and mark what the assistant says.

``rendered_templates.json`` holds conversations and, for each family, the text that the model's own template
writes, rendered beforehand. Where that template drops what the assistant said in earlier turns, the text is
that of the exchanges one after the other, each as the template writes it while it is the last; conversations
of which it drops something even then are not among the texts.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefero.data.chat import ChatTemplate, Writing
from prefero.data.examples import Example, Message
from prefero.data.preview import origin_of_template
from prefero.data.render import Rendered, Renderers, ending_of, with_earlier_turns
from prefero.data.templates import NAMES, template_text
from prefero.data.tokenize import TokenDataset, tokenize
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from tests.data.chat_templates import TEMPLATES
from tests.data.test_joint_tokens import ADD, ROLES, SYSTEM, call, pair, result, said, user
from tests.data.tokenizer_kinds import make

RENDERED = json.loads(Path(__file__).with_name("rendered_templates.json").read_text(encoding="utf-8"))
CONVERSATIONS: dict[str, dict[str, Any]] = RENDERED["conversations"]

DATE = dt.date(2026, 3, 14)
"""The day in the rendered texts."""

ENDS = {
    "deepseek-r1": "<｜end▁of▁sentence｜>",
    "glm-4.5": "<|endoftext|>",
    "gpt-oss": "<|return|>",
    "kimi-k2-thinking": "<|im_end|>",
    "nemotron-3": "<|im_end|>",
    "qwen3": "<|im_end|>",
}

FORGETS = (
    "{%- set kept = namespace(turns=[], last=-1) -%}"
    "{%- for m in messages if m.role == 'user' -%}{%- set kept.last = kept.last + 1 -%}{%- endfor -%}"
    "{%- set kept.at = -1 -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set kept.at = kept.at + 1 -%}{%- endif -%}"
    "{%- set text = (m.content or '').split('</think>')[-1] -%}"
    "{%- set forgotten = dict(m, reasoning_content='', thinking='', content=text) -%}"
    "{%- set old = m.role == 'assistant' and kept.at < kept.last -%}"
    "{%- set kept.turns = kept.turns + [forgotten if old else m] -%}{%- endfor -%}"
    "{%- set messages = kept.turns -%}"
)
"""Takes the thoughts out of all turns before the last question."""


def untagged(name: str) -> str:
    source = template_text(name)
    assert source is not None
    return re.sub(r"\{%-? (end)?generation -?%\}", "", source)


def tokenizer_of(name: str, template: str | None = None) -> Any:
    """A tokenizer for a family, whose own template forgets thoughts, or is ``template``."""
    marks = tuple(dict.fromkeys([*re.findall(r"<[|｜][^<>]+[|｜]>", untagged(name)), ENDS[name]]))
    kind = "bytes-bos" if name == "deepseek-r1" else "bytes"
    return make(kind, marks, ENDS[name], FORGETS + untagged(name) if template is None else template)


def template_of(name: str) -> ChatTemplate:
    tokenizer = tokenizer_of(name)
    return ChatTemplate(tokenizer, tokenizer, Writing(name, date=DATE), template_text(name))


def written(name: str, conversation: dict[str, Any]) -> str | None:
    options = dict(conversation)
    return template_of(name).write(options.pop("messages"), **options)


def test_there_is_a_text_of_every_template() -> None:
    assert set(NAMES) == set(RENDERED["texts"]) == set(ENDS)
    assert all(len(texts) >= 15 for texts in RENDERED["texts"].values())


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_that_of_the_models_own_template(name: str) -> None:
    texts = RENDERED["texts"][name]
    assert {title: written(name, CONVERSATIONS[title]) for title in texts} == texts


@pytest.mark.parametrize("name", NAMES)
def test_turns_stay_as_they_are_when_others_follow(name: str) -> None:
    for title, conversation in CONVERSATIONS.items():
        turns = conversation["messages"]
        options = {key: value for key, value in conversation.items() if key != "add_generation_prompt"}
        before = ""
        for count in range(1, len(turns) + 1):
            within = count < len(turns) and turns[count]["role"] == "tool" == turns[count - 1]["role"]
            if within or turns[count - 1]["role"] == "system":
                continue  # outputs of several tools are one block, and some templates want a question
            text = written(name, {**options, "messages": turns[:count]})
            if text is None:
                assert (name, title) in {
                    ("gpt-oss", "two calls"),
                    ("gpt-oss", "two calls without a thought"),
                }
                break
            assert text.startswith(before), title
            before = text


# What is scored

TURNS = [
    {**call("add", a=2), "reasoning_content": "I add."},
    result("4"),
    said("It is 4.", reasoning_content="Well."),
    user("Sure?"),
    said("Yes."),
]
"""A response with thoughts and a call, and another turn behind another question."""

SPOKEN = {
    "deepseek-r1": [
        "I add.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n"
        '```json\n{"a": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>',
        "<think>\nWell.\n</think>\n\nIt is 4.<｜end▁of▁sentence｜>",
        "Yes.<｜end▁of▁sentence｜>",
    ],
    "glm-4.5": [
        "\n<think>I add.</think>\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>2</arg_value>\n"
        "</tool_call><|observation|>",
        "\n<think>Well.</think>\nIt is 4.<|user|>",
        "\n<think></think>\nYes.",
    ],
    "gpt-oss": [
        "<|channel|>analysis<|message|>I add.<|end|><|start|>assistant to=functions.add<|channel|>commentary "
        'json<|message|>{"a": 2}<|call|>',
        "<|channel|>analysis<|message|>Well.<|end|><|start|>assistant<|channel|>final<|message|>It is 4."
        "<|return|>",
        "<|channel|>final<|message|>Yes.<|return|>",
    ],
    "kimi-k2-thinking": [
        "<think>I add.</think><|tool_calls_section_begin|><|tool_call_begin|>functions.add:0"
        '<|tool_call_argument_begin|>{"a": 2}<|tool_call_end|><|tool_calls_section_end|><|im_end|>',
        "<think>Well.</think>It is 4.<|im_end|>",
        "<think></think>Yes.<|im_end|>",
    ],
    "nemotron-3": [
        "I add.\n</think>\n<tool_call>\n<function=add>\n<parameter=a>\n2\n</parameter>\n</function>\n"
        "</tool_call>\n<|im_end|>",
        "Well.\n</think>\nIt is 4.<|im_end|>",
        "<think></think>Yes.<|im_end|>",
    ],
    "qwen3": [
        '<think>\nI add.\n</think>\n\n<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'
        "<|im_end|>",
        "<think>\nWell.\n</think>\n\nIt is 4.<|im_end|>",
        "<think>\n\n</think>\n\nYes.<|im_end|>",
    ],
}


def with_ids(turns: list[Message]) -> list[Message]:
    """The turns with the names that Kimi's tools have."""
    named = json.loads(json.dumps(turns))
    for turn in named:
        for made in turn.get("tool_calls", []):
            made["id"] = "functions.add:0"
    return named


def rendered(name: str, example: Example, writing: Writing | None = None) -> Rendered:
    """The chosen response, by the template that is taken automatically if no ``writing`` names one."""
    renderers = Renderers(tokenizer_of(name), None, writing, [example])
    renderer = renderers.of(example)
    ending = ending_of(example.prompt, example.responses)
    return renderer.response(example.prompt, example.responses[0], example, ending)


def spoken_in(side: Rendered) -> list[str]:
    return [side.text[start:stop] for start, stop in side.scored]


@pytest.mark.parametrize("name", NAMES)
def test_scored_is_what_the_assistant_says_with_its_end_mark(name: str) -> None:
    example = pair([SYSTEM, user("2 + 2?")], with_ids(TURNS), [said("No.")], tools=(ADD,))
    side = rendered(name, example)
    assert spoken_in(side) == SPOKEN[name]
    assert side.end == (name == "glm-4.5")  # it ends with a token that its template does not write
    assert side.text.endswith(SPOKEN[name][-1])
    assert side.scored[0][0] == side.start or name == "glm-4.5"


@pytest.mark.parametrize("name", NAMES)
def test_a_response_that_ends_with_a_call_keeps_it(name: str) -> None:
    turns = with_ids([*TURNS[2:4], TURNS[0]])
    side = rendered(name, pair([user("2 + 2?")], turns, [said("No.")]))
    last = SPOKEN[name][0].removesuffix("<|observation|>")
    assert spoken_in(side)[-1] == last and side.text.endswith(last)


@pytest.mark.parametrize(
    ("name", "given"), [("qwen3", "<think>\n\n</think>\n\n"), ("nemotron-3", "<think></think>")]
)
def test_an_empty_thought_of_the_prompt_is_not_what_the_assistant_says(name: str, given: str) -> None:
    example = pair([user("2 + 2?")], [said("4."), user("Sure?"), said("Yes.")], [said("No.")])
    side = rendered(name, replace(example, template_options={"enable_thinking": False}))
    assert spoken_in(side) == ["4.<|im_end|>", "Yes.<|im_end|>"]
    assert side.text.count(given) == 2 and side.text[: side.start].endswith(given)


def test_what_comes_behind_a_cut_is_not_scored() -> None:
    chosen, rejected = pair([user("2 + 2?")], TURNS[2:], [said("No.")]).responses
    example = Example((user("2 + 2?"),), (replace(chosen, ended=False), rejected), origin="rows, row 1")
    side = rendered("qwen3", example)
    assert spoken_in(side) == [SPOKEN["qwen3"][1], "<think>\n\n</think>\n\nYes."]
    assert not side.end


# What is chosen

ON = pair([user("2 + 2?")], TURNS[2:], [said("No.", reasoning_content="Hm.")])
"""A response that goes on behind another question."""

ONE = pair(
    [user("2 + 2?"), said("4."), user("Sure?")],
    [said("Yes.", reasoning_content="Well.")],
    [said("No.", reasoning_content="Hm.")],
)


def read(name: str, *examples: Example, **writing: Any) -> TokenDataset:
    return tokenize(list(examples), tokenizer_of(name), roles=ROLES, writing=Writing(**writing))


ENDLESS = {"glm-4.5"}
"""Families whose turns end with the mark of the next speaker."""


@pytest.mark.parametrize("name", NAMES)
def test_data_that_go_on_take_the_template_of_the_models_family(name: str) -> None:
    data = read(name, ON, ONE)
    assert data.writing.template == name
    reason = (
        f"{name}, a training template of prefero that keeps earlier turns, which the model's own does not"
    )
    assert data.summary.notes[0] == f"template: {reason}."
    assert origin_of_template(data.writing, "own") == reason
    named = read(name, ON, ONE, template=name)
    assert [cells_of(row) for row in data] == [cells_of(row) for row in named]
    assert named.summary.notes == data.summary.notes[1:]


def cells_of(row: TokenExample) -> list[Any]:
    return [
        (cell.context.tolist(), cell.response.tolist(), None if cell.scored is None else cell.scored.tolist())
        for cell in row.cells
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ENDLESS])
def test_data_that_it_keeps_are_written_by_the_models_own_template(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for example in (ONE, pair([user("2 + 2?")], with_ids(TURNS[:3]), [said("No.")])):
        renderers = Renderers(tokenizer, None, None, [example])
        assert renderers.writing.shown == "auto"
        side = rendered(name, example)
        turns = [*example.prompt, *example.responses[0].content]  # type: ignore[list-item]
        own = tokenizer.apply_chat_template(turns, tokenize=False)
        assert own.startswith(side.text) and not own.removeprefix(side.text).strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_template_that_forgets_thoughts_behind_tools_is_replaced_too(name: str) -> None:
    forgets = FORGETS.replace("kept.at < kept.last", "not loop.last") + untagged(name)
    loop = pair([user("2 + 2?")], with_ids(TURNS[:3]), [said("No.")])
    renderers = Renderers(tokenizer_of(name, forgets), None, None, [loop])
    assert renderers.writing.template == name
    side = renderers.of(loop).response(loop.prompt, loop.responses[0], loop, "open")
    assert spoken_in(side) == [SPOKEN[name][0], SPOKEN[name][1].removesuffix("<|user|>")]


@pytest.mark.parametrize("name", NAMES)
def test_a_template_that_keeps_turns_is_replaced_only_where_they_have_no_end(name: str) -> None:
    writing = Renderers(tokenizer_of(name, untagged(name)), None, None, [ON]).writing
    assert writing.template == (name if name in ENDLESS else "auto")
    assert ("marks the ends of turns" in writing.reason) == (name in ENDLESS)


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        ("'<|im_start|>assistant\\n' ~ ('<think>", "'<|im_start|>assistant\\n<think>\\n' ~ ('<think>"),
        ("{%- if tools -%}", "{%- if false -%}"),
        ("{%- elif system is not none -%}", "{%- else -%}"),
        ("~ '\\n</think>\\n\\n' -%}", "~ '\\n</think>\\n' -%}"),
    ],
)
def test_a_template_that_writes_anything_otherwise_is_not_of_the_family(what: str, instead: str) -> None:
    source = untagged("qwen3")
    assert what in source
    tokenizer = tokenizer_of("qwen3", FORGETS + source.replace(what, instead))
    assert Renderers(tokenizer, None, None, [ON]).writing.template == "auto"


def test_where_no_template_is_alike_all_stays_as_it_is() -> None:
    spec = TEMPLATES["one end"]
    with pytest.raises(PreferoError, match=r"row 1: the response has several turns, .* \(data.template\)"):
        tokenize([ON], make("bytes", spec.marks, spec.eos, spec.source), roles=ROLES)


@pytest.mark.parametrize("name", NAMES)
def test_all_turns_of_the_assistant_are_scored_with_their_thoughts(name: str) -> None:
    turns = with_ids(TURNS)
    example = with_earlier_turns(
        pair([SYSTEM, user("2 + 2?"), *turns[:4]], turns[4:], [said("No.")], tools=(ADD,))
    )
    assert spoken_in(rendered(name, example)) == SPOKEN[name]
    data = read(name, ONE, score="all_assistant")
    assert data.writing.template == name and data.writing.score == "all_assistant"
    assert read(name, ONE).writing.template == "auto"


def test_a_thought_that_a_template_leaves_out_is_said() -> None:
    forgets = FORGETS.replace("kept.at < kept.last", "true") + untagged("kimi-k2-thinking")
    data = tokenize([ONE], tokenizer_of("kimi-k2-thinking", forgets), roles=ROLES)
    assert "the chat template leaves out or changes part of what the response says" in data[0].notes


# A template that is named


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        PreferoError, match=r"'qwen' cannot be read .*deepseek-r1, glm-4.5.*did you mean 'qwen3'"
    ):
        template_text("qwen")


def test_a_name_goes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("qwen3", "mine"):
        (tmp_path / name).write_text("a file", encoding="utf-8")
    assert template_text("mine") == template_text("./qwen3") == "a file"
    assert str(template_text("qwen3")).startswith("{#- Qwen3.")


def test_a_template_of_another_family_is_said_to_write_otherwise() -> None:
    tokenizer = tokenizer_of("qwen3")
    (note,) = (note for note in tokens_of(tokenizer, "glm-4.5").summary.notes if "template:" in note)
    told = "which writes conversations in another way than the tokenizer's default template"
    assert note == f"template: glm-4.5, {told}."
    assert not any("template:" in note for note in tokens_of(tokenizer, "qwen3").summary.notes)


def tokens_of(tokenizer: Any, template: str) -> TokenDataset:
    return tokenize(
        [pair([user("Why?")], "Because.", "No.")], tokenizer, roles=ROLES, writing=Writing(template)
    )


def test_a_file_that_is_no_template_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.jinja"
    path.write_text("{% for m in messages %}\n{{ m.content }\n{% endfor %}", encoding="utf-8")
    with pytest.raises(PreferoError, match=r"the chat template \(.*broken\.jinja\), line 2: .*Jinja"):
        Renderers(tokenizer_of("qwen3"), writing=Writing(str(path)))


def test_marks_in_a_macro_are_told_by_the_text(tmp_path: Path) -> None:
    file = tmp_path / "macro.jinja"
    file.write_text(
        "{% macro turn(m) %}<|im_start|>{{ m.role }}{{ '\n' }}{% generation %}{{ m.content }}<|im_end|>"
        "{% endgeneration %}{{ '\n' }}{% endmacro %}{% for m in messages %}{{ turn(m) }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}",
        encoding="utf-8",
    )
    side = rendered("qwen3", ON, Writing(str(file)))
    assert spoken_in(side) == ["It is 4.<|im_end|>", "Yes.<|im_end|>"]


@pytest.mark.parametrize(
    ("marks", "scored"),
    [
        (
            "{%- generation -%}<|im_start|>assistant\n{{ m.content }}<|im_end|>{{- '\n' -}}"
            "{%- endgeneration -%}",
            None,
        ),
        (
            "<|im_start|>assistant\n{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>{{- '\n' -}}",
            None,
        ),
        (
            "<|im_start|>assistant\n{{ m.content.removesuffix(m.content.split('A:')[-1]) }}"
            "{% generation %}{{ m.content.split('A:')[-1] }}{% endgeneration %}<|im_end|>{{- '\n' -}}",
            [" 4.<|im_end|>", " Yes.<|im_end|>"],
        ),
    ],
)
def test_the_marks_of_a_file_tell_what_is_scored(
    tmp_path: Path, marks: str, scored: list[str] | None
) -> None:
    file = tmp_path / "marked.jinja"
    file.write_text(
        f"{{%- for m in messages -%}}{{%- if m.role == 'assistant' -%}}{marks}"
        "{%- else -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{- '\n' -}}{%- endif -%}"
        "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant{{- '\n' -}}{%- endif -%}",
        encoding="utf-8",
    )
    several = [said("Well. A: 4."), user("Sure?"), said("A: Yes.")]
    example = pair([user("2 + 2?")], several, [said("A: No.")])
    scored = scored or ["Well. A: 4.<|im_end|>", "A: Yes.<|im_end|>"]
    assert spoken_in(rendered("qwen3", example, Writing(str(file)))) == scored
    alone = pair([user("2 + 2?")], several[:1], [said("A: No.")])
    assert spoken_in(rendered("qwen3", alone, Writing(str(file)))) == scored[:1]
