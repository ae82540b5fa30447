"""Switching adapters off gives the start model back, through a private flag of PEFT that this pins."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from prefero.data.packing import pack
from prefero.errors import PreferoError
from prefero.models.causal.scoring import Language
from prefero.models.loading import adapters_off
from tests.models.brute_force import PAIRS, examples
from tests.models.causal.families import build


def policy(base, **changes):
    settings = {"target_modules": ["q_proj", "down_proj", "lm_head"], "init_lora_weights": False, **changes}
    return peft.get_peft_model(base, peft.LoraConfig(**settings))


def test_the_policy_without_adapters_is_its_start_model() -> None:
    base, forest = build("llama"), pack(examples(*PAIRS))
    model = policy(copy.deepcopy(base))
    with torch.no_grad():
        changed = Language.score(model, forest)[""].logps
        with adapters_off(model):
            off = Language.score(model, forest)[""].logps
        torch.testing.assert_close(off, Language.score(base, forest)[""].logps, atol=1e-6, rtol=0)
        assert torch.equal(Language.score(model, forest)[""].logps, changed)
    assert (changed - off).abs().max() > 1e-2


def test_it_agrees_with_the_public_switch() -> None:
    model, forest = policy(build("llama")), pack(examples(*PAIRS))
    with torch.no_grad():
        with adapters_off(model):
            off = Language.score(model, forest)[""].logps
        with model.disable_adapter():
            assert torch.equal(Language.score(model, forest)[""].logps, off)


def test_only_the_flag_is_touched() -> None:
    model = policy(build("llama"))
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    layers[0]._disable_adapters = True
    with adapters_off(model):
        assert all(layer.disable_adapters for layer in layers)
        assert [parameter.requires_grad for parameter in model.parameters()] == trainable
    assert [layer.disable_adapters for layer in layers] == [True] + [False] * (len(layers) - 1)


def test_flags_come_back_after_an_error() -> None:
    model = policy(build("llama"))
    with pytest.raises(RuntimeError, match="inside"), adapters_off(model):
        raise RuntimeError("inside")
    assert not any(m.disable_adapters for m in model.modules() if isinstance(m, BaseTunerLayer))


def test_merged_adapters_and_whole_modules_are_refused() -> None:
    merged = policy(build("llama", tie_word_embeddings=False))
    merged.merge_adapter()
    with pytest.raises(PreferoError, match="merged"), adapters_off(merged):
        pass
    saved = policy(build("llama"), target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(PreferoError, match="modules_to_save"), adapters_off(saved):
        pass
