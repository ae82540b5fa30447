"""The start-up check accepts what is right and refuses what is wrong."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from prefero.data.packing import pack
from prefero.errors import PreferoError
from prefero.models.causal import attention as forest_attention, selfcheck
from prefero.models.causal.attention import BranchPlan
from prefero.models.causal.scoring import Language
from tests.models.brute_force import PAIRS, examples, token_logps
from tests.models.causal.families import FALLBACKS, FAMILIES, build


@pytest.mark.parametrize("family", FALLBACKS)
def test_fallbacks_warn_once_with_family_and_reason(family: str) -> None:
    model = FALLBACKS[family]()
    with pytest.warns(UserWarning, match=f"{type(model).__name__} is scored in padded rows") as caught:
        assert Language.adapt(model) == "padded"
    assert len([w for w in caught if "padded rows" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Language.adapt(model)


@pytest.mark.parametrize("packing", ["trees", "dense"])
@pytest.mark.parametrize("family", FALLBACKS)
def test_forced_layouts_fail_on_models_without_trees(family: str, packing: str) -> None:
    model = FALLBACKS[family]()
    before = model.forward
    with pytest.raises(PreferoError, match="cannot be scored"):
        Language.adapt(model, packing=packing)
    assert model.forward == before


@pytest.mark.parametrize("family", FALLBACKS)
def test_the_numbers_alone_refuse_them_too(family: str, monkeypatch) -> None:
    """Without the cheap refusals: families that nobody listed must not slip through."""
    monkeypatch.setattr(selfcheck, "_refusal", lambda model: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Language.adapt(FALLBACKS[family]()) == "padded"


@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen2-windows", "phi3"])
def test_rules_in_row_coordinates_are_caught(family: str, monkeypatch) -> None:
    """A window over row positions is right for short texts; the check sees it though the window is long."""

    def in_row_coordinates(forest, rule):
        end = forest.end
        return lambda b, h, q, k: (k <= q) & (q < end[k]) & rule(b, h, q, k)

    monkeypatch.setattr(forest_attention, "ancestor_rule", in_row_coordinates)
    model = FAMILIES[family]()
    model.config.sliding_window = 4096
    with pytest.raises(PreferoError, match="differ by"):
        Language.adapt(model, packing="dense")
    assert model.config.sliding_window == 4096


@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen2-windows", "phi3"])
def test_branches_without_their_window_are_caught(family: str, monkeypatch) -> None:
    monkeypatch.setattr(
        forest_attention, "BranchPlan", lambda forest, rule: BranchPlan(forest, lambda b, h, q, k: k <= q)
    )
    model = FAMILIES[family]()
    model.config.sliding_window = 4096
    with pytest.raises(PreferoError, match="differ by"):
        Language.adapt(model, packing="trees")


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_missing_ancestor_mask_is_caught(family: str, monkeypatch) -> None:
    monkeypatch.setattr(forest_attention, "ancestor_rule", lambda forest, rule: rule)
    with pytest.raises(PreferoError, match="differ by"):
        Language.adapt(FAMILIES[family](), packing="dense")


def test_an_unknown_logit_rule_falls_back_to_the_own_forward() -> None:
    model = build("llama")
    own = type(model)

    class Scaled(own):
        def forward(self, input_ids=None, position_ids=None, **kwargs):
            output = super().forward(input_ids=input_ids, position_ids=position_ids, **kwargs)
            output.logits = output.logits * 0.5
            return output

    model.__class__ = Scaled
    batch = examples(*PAIRS)
    expected = token_logps(model, batch)
    alone = copy.deepcopy(model)
    assert Language.adapt(model) == "trees"
    assert (Language.score(model, pack(batch))[""].logps - expected).abs().max() < 5e-6
    Language.adapt(alone, packing="padded")
    assert (Language.score(alone, pack(batch))[""].logps - expected).abs().max() < 5e-6


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3-moe", "gpt2"])
def test_half_precision_models_pass(family: str) -> None:
    assert Language.adapt(FAMILIES[family]().bfloat16()) == "trees"


@pytest.mark.parametrize("family", ["bloom", "gpt-neo"])
def test_half_precision_does_not_excuse_a_wrong_mask(family: str, monkeypatch) -> None:
    monkeypatch.setattr(selfcheck, "_refusal", lambda model: None)
    with pytest.raises(PreferoError, match="differ by"):
        Language.adapt(FALLBACKS[family]().bfloat16(), packing="dense")


def test_check_leaves_no_trace() -> None:
    model = build("gemma3_text", head_dim=8, sliding_window=20)
    model.train()
    model.base_model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    Language.adapt(model)
    assert [module.training for module in model.modules()] == modes
    assert model.config.sliding_window == 20
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_autocast_of_a_caller_does_not_change_the_choice() -> None:
    model = FAMILIES["llama"]()
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Language.adapt(model) == "trees"
