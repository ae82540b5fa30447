from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from prefero.demo.reviews import vocabulary
from prefero.demo.start import StartModel
from prefero.errors import PreferoError
from prefero.generate.sampling import Sample, sample
from prefero.models.causal.scoring import Language
from tests.demo.small import SMALL

PROMPTS = [
    "we tried this soup today.",
    "i got it.",
    "the soup",
    "they booked that hotel yesterday, and it was bad.",
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> StartModel:
    return SMALL.start_model(tmp_path_factory.mktemp("worlds"))


def draw(
    start: StartModel, model: PreTrainedModel | None = None, seed: int = 0, **settings: object
) -> list[Sample]:
    settings = {"prompts": PROMPTS, "max_new_tokens": 10, **settings}
    generator = torch.Generator().manual_seed(seed)
    return sample(model or start.model, start.tokenizer, generator=generator, **settings)  # type: ignore[arg-type]


def tokens(samples: list[Sample]) -> list[list[int]]:
    return [one.tokens.tolist() for one in samples]


def test_the_generator_decides_and_nothing_else(start: StartModel) -> None:
    torch.manual_seed(1)
    first = draw(start)
    state = torch.manual_seed(2).get_state()
    assert tokens(draw(start)) == tokens(first)
    assert torch.equal(torch.get_rng_state(), state)
    assert tokens(draw(start, seed=1)) != tokens(first)


def test_a_generator_goes_on_where_it_was(start: StartModel) -> None:
    generator = torch.Generator().manual_seed(0)
    settings = {"generator": generator, "max_new_tokens": 10}
    first, second = (sample(start.model, start.tokenizer, PROMPTS, **settings) for _ in range(2))
    assert tokens(first) != tokens(second)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_log_probabilities_are_those_of_a_plain_forward(start: StartModel, batch_size: int) -> None:
    """Left padding, positions and cache leave no trace."""
    for one in draw(start, count=2, batch_size=batch_size, temperature=0.7, top_p=0.9):
        ids = torch.from_numpy(np.concatenate([one.context, one.tokens]))[None]
        with torch.no_grad():
            logps = start.model(ids).logits[0, :-1].double().log_softmax(-1)
        expected = logps.gather(-1, ids[0, 1:, None]).squeeze(-1)[len(one.context) - 1 :]
        np.testing.assert_allclose(one.logps, expected.numpy(), atol=2e-5)


def test_contexts_are_those_of_training(start: StartModel) -> None:
    for one, prompt in zip(draw(start), PROMPTS, strict=True):
        assert one.context.tolist() == start.tokenizer(prompt).input_ids
        assert one.cell.response is one.tokens


def test_conversations_are_rendered_for_the_assistant_to_answer(start: StartModel) -> None:
    tokenizer = start.tokenizer
    before = tokenizer.chat_template
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.content }} {% if m.role == 'assistant' %}</s>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}but {% endif %}"
    )
    try:
        [one] = draw(start, prompts=[({"role": "user", "content": "the soup was bad."},)])
    finally:
        tokenizer.chat_template = before
    assert tokenizer.decode(one.context) == "<s> the soup was bad. but"


def test_several_samples_of_a_prompt_stand_together_and_differ(start: StartModel) -> None:
    samples = draw(start, count=3)
    assert [one.prompt for one in samples] == [prompt for prompt in PROMPTS for _ in range(3)]
    assert len({tuple(ids) for ids in tokens(samples)}) > len(PROMPTS)


def test_the_draw_has_the_distribution_of_the_model(start: StartModel) -> None:
    count, prompt = 4000, PROMPTS[0]
    ids = torch.tensor([start.tokenizer(prompt).input_ids])
    with torch.no_grad():
        p = (start.model(ids).logits[0, -1].double() / 0.5).softmax(-1).numpy()
    drawn = draw(start, prompts=[prompt], count=count, max_new_tokens=1, temperature=0.5, batch_size=count)
    seen = np.bincount([one.tokens[0] for one in drawn], minlength=len(p))
    chi_squared = ((seen - count * p) ** 2 / (count * p)).sum()
    freedom = len(p) - 1
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


def test_temperature_zero_takes_the_likeliest(start: StartModel) -> None:
    first = draw(start, temperature=0)
    assert tokens(first) == tokens(draw(start, temperature=0, seed=9))
    ids = torch.from_numpy(first[0].context)[None]
    with torch.no_grad():
        assert first[0].tokens[0] == start.model(ids).logits[0, -1].argmax()


def test_the_nucleus_leaves_the_tail_out(start: StartModel) -> None:
    ids = torch.tensor([start.tokenizer(PROMPTS[0]).input_ids])
    with torch.no_grad():
        p = start.model(ids).logits[0, -1].softmax(-1)
    order = p.argsort(descending=True)
    nucleus = set(order[: int((p[order].cumsum(0) < 0.2).sum()) + 1].tolist())
    drawn = draw(start, prompts=[PROMPTS[0]], count=300, max_new_tokens=1, top_p=0.2, batch_size=300)
    assert {int(one.tokens[0]) for one in drawn} <= nucleus


def _that_says(start: StartModel, word: int) -> LlamaForCausalLM:
    """A model that always says ``word``."""
    model = LlamaForCausalLM(start.model.config).eval()
    model.lm_head = torch.nn.Linear(16, len(start.tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    with torch.no_grad():
        model.lm_head.bias.zero_()
        model.lm_head.bias[word] = 50
    return model


def test_the_end_token_ends_and_is_part_of_the_tokens_only(start: StartModel) -> None:
    end = start.tokenizer.eos_token_id
    for one in draw(start, _that_says(start, end)):
        assert one.ended and one.tokens.tolist() == [end] and one.text == "" and len(one.logps) == 1
    word = start.tokenizer.convert_tokens_to_ids("soup")
    for one in draw(start, _that_says(start, word)):
        assert not one.ended and one.tokens.tolist() == [word] * 10


def test_end_tokens_of_the_model_count_and_its_other_settings_do_not(start: StartModel) -> None:
    word = start.tokenizer.convert_tokens_to_ids("soup")
    model = _that_says(start, word)
    settings = model.generation_config
    settings.eos_token_id = [start.tokenizer.eos_token_id, word]
    settings.update(repetition_penalty=9.0, top_k=1, temperature=0.01, do_sample=True)
    assert all(one.ended and one.tokens.tolist() == [word] for one in draw(start, model))
    assert model.generation_config is settings

    free = start.model.generation_config
    start.model.generation_config = settings
    try:
        assert len(Counter(map(tuple, tokens(draw(start, count=20, max_new_tokens=1))))) > len(PROMPTS)
    finally:
        start.model.generation_config = free


def test_modes_are_restored_module_by_module(start: StartModel) -> None:
    model = GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=len(vocabulary()) + 4)
    ).train()
    model.transformer.h[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    first = draw(start, model)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert tokens(first) == tokens(draw(start, model))  # its dropout was off


def test_a_model_that_scores_forests_samples_the_same(start: StartModel) -> None:
    plain = LlamaForCausalLM.from_pretrained(start.folder)
    expected = tokens(draw(start, plain))
    Language.adapt(plain)
    assert tokens(draw(start, plain)) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": []}, "no prompts"),
        ({"count": 0}, "count is 0; expected at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, r"top_p is 0.0; expected a share above 0, at most 1"),
    ],
)
def test_settings_out_of_range_are_named(start: StartModel, settings: dict, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        draw(start, **settings)
