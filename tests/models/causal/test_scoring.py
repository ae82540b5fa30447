"""What adapting a model leaves as it was, and what scoring promises besides its numbers."""

from __future__ import annotations

import copy
import inspect
import warnings

import peft
import pytest
import torch
from transformers import AutoModel

from prefero.data.packing import pack
from prefero.errors import PreferoError
from prefero.models.causal.scoring import Language
from prefero.models.loading import innermost
from tests.models.brute_force import PAIRS, examples, gradients, relative_error, token_logps, weights_like
from tests.models.causal.families import FAMILIES, build


def test_everything_else_is_as_before(tmp_path) -> None:
    model = build("llama")
    alone = copy.deepcopy(model)
    Language.adapt(model)
    ids = torch.randint(3, 67, (2, 9))
    assert list(model.state_dict()) == list(alone.state_dict())
    assert inspect.signature(model.forward) == inspect.signature(alone.forward)
    torch.testing.assert_close(model(input_ids=ids).logits, alone(input_ids=ids).logits)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), alone.generate(ids, **options))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    torch.testing.assert_close(again(input_ids=ids).logits, alone(input_ids=ids).logits)


def test_generation_between_scorings() -> None:
    model, forest = build("gemma3_text", head_dim=8, sliding_window=6), pack(examples(*PAIRS))
    first = Language.score(model, forest)[""].logps
    model.generate(torch.randint(3, 67, (1, 9)), max_new_tokens=4, do_sample=False)
    assert torch.equal(Language.score(model, forest)[""].logps, first)


def test_adapting_twice_changes_nothing() -> None:
    model = build("llama")
    assert Language.adapt(model) == "trees"
    forward = model.forward
    assert Language.adapt(model) == "trees"
    assert model.forward == forward
    assert Language.adapt(model, packing="dense") == "dense"
    assert model.forward == forward
    assert Language.adapt(model) == "dense"


def test_a_copy_is_a_model_of_its_own() -> None:
    model, forest = build("llama"), pack(examples(*PAIRS))
    before = Language.score(model, forest)[""].logps.detach()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert torch.equal(Language.score(other, forest)[""].logps, before)
    assert not torch.allclose(Language.score(model, forest)[""].logps, before)


def test_dropout_is_zeroed_unless_kept() -> None:
    changes = {
        "resid_pdrop": 0.3,
        "embd_pdrop": 0.3,
        "attn_pdrop": 0.3,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
    }
    forest = pack(examples(*PAIRS))
    noisy = build("gpt2", **changes).train()
    Language.adapt(noisy, keep_dropout=True)
    assert not torch.equal(Language.score(noisy, forest)[""].logps, Language.score(noisy, forest)[""].logps)
    quiet = build("gpt2", **changes).train()
    Language.adapt(quiet)
    assert torch.equal(Language.score(quiet, forest)[""].logps, Language.score(quiet, forest)[""].logps)
    functional = build("seed_oss", attention_dropout=0.1, head_dim=8).train()
    Language.adapt(functional)
    assert torch.equal(
        Language.score(functional, forest)[""].logps, Language.score(functional, forest)[""].logps
    )


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "down_proj", "lm_head"], "all-linear"])
def test_lora_equals_separate_rows(targets) -> None:
    base = build("llama", tie_word_embeddings=False)
    config = peft.LoraConfig(target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    alone = copy.deepcopy(model)
    batch = examples(*PAIRS)
    assert Language.adapt(model) == "trees"
    scored, expected = Language.score(model, pack(batch))[""].logps, token_logps(alone, batch)
    assert (scored - expected).abs().max() < 5e-6
    weights = weights_like(expected)
    slope = gradients(model, (scored * weights).sum())
    assert relative_error(slope, gradients(alone, (expected * weights).sum())) < 2e-6


def test_adapters_may_come_after_adapting() -> None:
    base, batch = build("llama"), examples(*PAIRS)
    Language.adapt(base)
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear", init_lora_weights=False))
    expected = token_logps(model, batch)
    assert (Language.score(model, pack(batch))[""].logps - expected).abs().max() < 5e-6


def test_prompt_tuning_is_refused() -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(PreferoError, match="PROMPT_TUNING adapters put virtual tokens"):
        Language.adapt(peft.get_peft_model(build("llama"), config))


def test_what_is_not_a_language_model_is_refused() -> None:
    with pytest.raises(PreferoError, match="no language-model head"):
        Language.adapt(AutoModel.from_config(build("llama").config))
    with pytest.raises(PreferoError, match="Linear is not a transformers model"):
        Language.adapt(torch.nn.Linear(2, 2))


def test_wrapped_models_are_seen_through() -> None:
    model = build("llama")
    assert innermost(torch.nn.DataParallel(model)) is model
    assert innermost(torch.compile(model)) is model
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))
    assert innermost(adapted) is model


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2", "gemma3"])
def test_autocast_error_is_bounded(family: str) -> None:
    """bfloat16 keeps 8 bits: on these rough small models a token's log-probability moves by less than 0.3
    nats, their mean by less than 0.02, the gradient by less than 5 %."""
    model, batch = FAMILIES[family](), examples(*PAIRS)
    forest = pack(batch)
    exact = Language.score(model, forest)[""].logps
    weights = weights_like(exact)
    slope = gradients(model, (exact * weights).sum())
    with torch.autocast("cpu", torch.bfloat16):
        rough = Language.score(model, forest)[""].logps
    assert rough.dtype == torch.float32
    difference = (rough - exact).detach()
    assert 0 < difference.abs().max() < 0.3
    assert difference.mean().abs() < 0.02
    assert relative_error(gradients(model, (rough * weights).sum()), slope) < 0.05


def test_scores_follow_the_grad_mode() -> None:
    model, forest = build("llama"), pack(examples(*PAIRS))
    assert Language.score(model, forest)[""].logps.requires_grad
    with torch.no_grad():
        assert not Language.score(model, forest)[""].logps.requires_grad


def test_frozen_model_needs_no_gradient_and_no_buffer() -> None:
    model, forest = build("llama").requires_grad_(False), pack(examples(*PAIRS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not Language.score(model, forest)[""].logps.requires_grad


def test_sdpa_without_a_forest_is_untouched() -> None:
    """Registered wrappers pass through for every other model of the process."""
    Language.adapt(build("llama"))
    other = build("mistral", sliding_window=4, seed=3)
    ids = torch.randint(3, 67, (2, 12))
    other.config._attn_implementation = "eager"
    eager = other(input_ids=ids).logits
    other.config._attn_implementation = "sdpa"
    assert (other(input_ids=ids).logits - eager).abs().max() < 1e-5
