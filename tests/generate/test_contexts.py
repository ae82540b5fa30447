"""A model generates from the context in which training has the responses of the same row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import decoders
from transformers import LlamaConfig, LlamaForCausalLM

from prefero.data.chat import Writing
from prefero.data.encode import prompt_ids
from prefero.data.examples import Example, Response
from prefero.data.formats import load_examples
from prefero.data.tokenize import tokenize
from prefero.errors import PreferoError
from prefero.generate.sampling import Sample, sample
from prefero.models.kind import Reading
from prefero.models.loading import kind_of
from prefero.objectives import from_config
from prefero.objectives.needs import dry_run
from tests.data.chat_templates import TEMPLATES
from tests.data.test_image_prompts import row as row_with
from tests.data.test_joint_tokens import ADD, ROLES, SYSTEM, call, pair, result, said, user
from tests.data.test_training_templates import ON, ONE, tokenizer_of
from tests.data.tokenizer_kinds import make
from tests.vision import PROCESSORS, image, vision_model

ASKS_TO_THINK = "{% if think %}Think first.{% endif %}" + TEMPLATES["chatml"].source

QUESTION = user("What is the capital of France?")
BEGUN = [QUESTION, said("It is ")]

ROWS = {
    "plain": pair("What is the capital of France?", " Paris.", " Berlin."),
    "plain, a space at its end": pair("What is the capital of France? ", "Paris.", "Berlin."),
    "plain, with turns": pair("What is it?", [said("Paris.")], [said("No.")]),
    "a conversation": pair([QUESTION], "Paris.", "Berlin."),
    "a conversation, with turns": pair([SYSTEM, QUESTION], [said("Paris.")], [said("No.")]),
    "a begun turn": pair(BEGUN, "Paris.", "Berlin."),
    "a turn behind another": pair(BEGUN, [said("Paris.")], [said("No.")]),
    "several turns": pair(
        [QUESTION, said("Paris."), user("Sure?")], [said("Yes."), user("So?"), said("It is.")], [said("No.")]
    ),
    "a turn of the user first": pair(
        [QUESTION, said("Paris.")], [user("Sure?"), said("Yes.")], [said("No.")]
    ),
    "a response to another prompt": Example(
        tuple(BEGUN),
        (Response("Paris.", "chosen"), Response((said("No."),), "rejected", prompt=(user("Why?"),))),
        origin="rows, row 1",
    ),
}
WITH_TEMPLATE = {
    "tools": pair([QUESTION], [call("add", a=2)], [said("No.")], tools=(ADD,)),
    "tools that answered": pair(
        [QUESTION, call("add", a=2), result("4")], [said("It is 4.")], [said("No.")], tools=(ADD,)
    ),
    "options": pair([QUESTION], [said("Yes.")], [said("No.")], template_options={"think": True}),
}
TOKENIZERS = ("bytes", "bytes-across-bos", "sp-bpe-prepend", "sp-unigram-first")


def readable(marks: tuple[str, ...] = (), template: str | None = None) -> Any:
    """A tokenizer whose tokens become the text that they were made of."""
    tokenizer = make("bytes", marks, template=template)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def small_model(tokenizer: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config)


def draw(tokenizer: Any, prompts: list[Any], writing: Writing | None = None) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    model = small_model(tokenizer)
    return sample(model, tokenizer, prompts, generator=generator, max_new_tokens=2, writing=writing)


def trained(example: Example, tokenizer: Any, writing: Writing | None = None, **more: Any) -> list[int]:
    """The context that training has of an example's first response."""
    (tokens,) = tokenize([example], tokenizer, roles=ROLES, writing=writing, **more)
    return tokens.cells[0].context.tolist()


def check(tokenizer: Any, example: Example, writing: Writing | None = None) -> Sample:
    (drawn,) = draw(tokenizer, [example], writing)
    assert drawn.context.tolist() == trained(example, tokenizer, writing)
    assert drawn.prompt == example.prompt
    return drawn


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", ROWS)
def test_without_a_template(name: str, kind: str) -> None:
    check(make(kind), ROWS[name])


@pytest.mark.parametrize("template", ["chatml", "llama 2", "tools", "vicuna", "opens a thought", "thinking"])
@pytest.mark.parametrize("name", [*ROWS, *WITH_TEMPLATE])
def test_with_a_template(name: str, template: str) -> None:
    spec, example = TEMPLATES[template], {**ROWS, **WITH_TEMPLATE}[name]
    tokenizer = make("bytes-bos", spec.marks, template=spec.source)
    try:
        trained(example, tokenizer)
    except PreferoError as refused:
        with pytest.raises(PreferoError) as also:
            draw(tokenizer, [example])
        assert str(also.value) == str(refused)
    else:
        check(tokenizer, example)


def test_what_a_row_adds_is_in_the_context() -> None:
    spec = TEMPLATES["tools"]
    tokenizer = readable(spec.marks, spec.source)
    assert "# Tools" in tokenizer.decode(check(tokenizer, WITH_TEMPLATE["tools"]).context)
    tokenizer = readable(TEMPLATES["chatml"].marks, ASKS_TO_THINK)
    shown = tokenizer.decode(check(tokenizer, WITH_TEMPLATE["options"]).context)
    assert "Think first." in shown
    shown = tokenizer.decode(
        check(tokenizer, ROWS["a conversation"], Writing(options={"think": True})).context
    )
    assert "Think first." in shown


def test_a_begun_turn_is_continued_and_a_whole_one_is_not() -> None:
    spec = TEMPLATES["chatml"]
    tokenizer = readable(spec.marks, spec.source)
    begun, whole = (check(tokenizer, ROWS[name]) for name in ("a begun turn", "a turn behind another"))
    assert tokenizer.decode(begun.context).rstrip().endswith("assistant\nIt is")
    assert tokenizer.decode(whole.context).endswith("<|im_start|>assistant\n")
    (alone,) = draw(tokenizer, [tuple(BEGUN)])
    assert tokenizer.decode(alone.context).endswith("assistant\nIt is ")


def test_the_text_of_a_response_stands_behind_the_prompt() -> None:
    """The space at the end of a prompt is no part of its response, though it is of the first token."""
    tokenizer = readable()
    example = ROWS["plain, a space at its end"]
    space = tokenizer.convert_tokens_to_ids("Ġ")
    word = next(
        id for token, id in sorted(tokenizer.get_vocab().items()) if token[0] == "Ġ" and token[1:].isalpha()
    )
    model = small_model(tokenizer)
    model.lm_head = torch.nn.Linear(8, len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    with torch.no_grad():
        model.lm_head.bias.zero_()
        model.lm_head.bias[word] = 50
    generator = torch.Generator().manual_seed(0)
    (drawn,) = sample(model, tokenizer, [example], generator=generator, max_new_tokens=1)
    assert drawn.context[-1] != space and drawn.tokens.tolist() == [word]
    assert drawn.text == tokenizer.decode([word]).lstrip()
    (alone,) = sample(model, tokenizer, [example.prompt], generator=generator, max_new_tokens=1)
    assert alone.context[-1] == space and alone.text == tokenizer.decode([word])


def test_the_training_template_of_the_data_is_that_of_samples() -> None:
    tokenizer = tokenizer_of("qwen3")
    data = tokenize([ON, ONE], tokenizer, roles=ROLES)
    assert data.writing.template == "qwen3"
    for drawn, tokens in zip(draw(tokenizer, [ON, ONE]), data, strict=True):
        assert drawn.context.tolist() == tokens.cells[0].context.tolist()
    (drawn,) = draw(tokenizer, [ONE], data.writing)
    assert drawn.context.tolist() == data[1].cells[0].context.tolist()


def test_prompts_with_images() -> None:
    processor = PROCESSORS["llava"]()
    kind = kind_of("auto", vision_model("llava", processor), processor)
    examples = load_examples([row_with(image(0)), row_with(image(1), image(2))])
    data = kind.read(examples, dry_run(from_config({"method": "dpo"})), Reading())
    prompts = kind.prompts(examples, 2, None)
    assert prompts == list(examples)
    found = prompt_ids(prompts, kind.tokenizer, kind.images, kind.writing)
    for ids, tokens in zip(found, data, strict=True):
        assert np.array_equal(ids, tokens.cells[0].context)
    with pytest.raises(PreferoError, match="shows 1 images, which this model does not see"):
        prompt_ids(prompts[:1], kind.tokenizer)


def test_prompts_read_apart_from_responses() -> None:
    tokenizer = make("bytes-across")
    for example in ROWS.values():
        (ids,) = prompt_ids([example], tokenizer, apart=True)
        assert ids.tolist() == trained(example, tokenizer, apart=True)


def test_rows_that_were_skipped_give_no_samples() -> None:
    spec = TEMPLATES["chatml"]
    tokenizer = make("bytes", spec.marks, template=spec.source)
    kind = kind_of("auto", small_model(tokenizer), tokenizer)
    bad = pair("half \ud83d", "a", "b")
    assert kind.prompts([bad, ROWS["plain"]], 2, None) == [ROWS["plain"]]
