"""Signals equal what full logits give, gradients included."""

from __future__ import annotations

import copy
from functools import partial

import peft
import pytest
import torch

from prefero.data.packing import pack
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.models import head
from prefero.models.causal.scoring import Language
from prefero.models.loading import adapters_off
from prefero.models.signals import SecondModel
from prefero.objectives.batch import Signal
from prefero.objectives.signals import divergence, nested_risk
from tests.models.brute_force import (
    PAIRS,
    cell_logps,
    examples,
    gradients,
    padded_stack,
    relative_error,
    weights_like,
)
from tests.models.causal.families import build

ENTROPY = Signal("entropy")
TOP_MASS = Signal("top_k_mass", options=(("k", 3),))
TOP_ENTROPY = Signal("top_k_entropy", options=(("k", 3),))
FORWARD_KL = Signal("forward_kl", against="reference")
REVERSE_KL = Signal("reverse_kl", against="reference")
STATE = Signal("state", axes="example response")
PROMPT_STATE = Signal("prompt_state", axes="example response")


def small_gpt2(seed: int = 0, **changes):
    """A family whose norms keep double precision."""
    return build("gpt2", n_embd=32, n_layer=2, n_head=4, seed=seed, **changes).double()


def top(p: torch.Tensor, k: int) -> torch.Tensor:
    return p.sort(-1, descending=True).values[:, :k]


def entropy(p: torch.Tensor) -> torch.Tensor:
    return -torch.xlogy(p, p).sum(-1)


def upper_part(p: torch.Tensor, q: torch.Tensor, confidence: float) -> torch.Tensor:
    """Σ q log q/p over the entries above the quantile of log q/p."""
    ratio = (q / p).log()
    quantile = torch.quantile(ratio.detach(), 1 - confidence, dim=-1, keepdim=True)
    return (q * ratio * (ratio > quantile)).sum(-1)


def worst_part(p: torch.Tensor, q: torch.Tensor, tail: float) -> torch.Tensor:
    """The mean of log q/p over the share ``tail`` of q where it is largest, entry by entry."""
    left, total = tail, p.new_zeros(())
    for ratio, mass in sorted(
        zip((q / p).log(), q.tolist(), strict=True), reverse=True, key=lambda one: one[0]
    ):
        total = total + min(mass, left) * ratio
        left -= min(mass, left)
    return total / tail


EXPECTED = {
    ENTROPY: lambda p, q: entropy(p),
    Signal("log_sum_p_squared"): lambda p, q: (p**2).sum(-1).log(),
    Signal("log_max_p"): lambda p, q: p.max(-1).values.log(),
    TOP_MASS: lambda p, q: top(p, 3).sum(-1),
    TOP_ENTROPY: lambda p, q: entropy(top(p, 3) / top(p, 3).sum(-1, keepdim=True)),
    FORWARD_KL: lambda p, q: (q * (q / p).log()).sum(-1),
    REVERSE_KL: lambda p, q: (p * (p / q).log()).sum(-1),
    nested_risk("released_cvar", confidence=0.8, split=False): lambda p, q: upper_part(p, q, 0.8),
    nested_risk("released_cvar", confidence=0.8, split=True): lambda p, q: (
        upper_part(p[:, :33], q[:, :33], 0.8) + upper_part(p[:, 33:], q[:, 33:], 0.8)
    ),
    nested_risk("cvar", tail=0.3): lambda p, q: torch.stack(
        [worst_part(*row, 0.3) for row in zip(p, q, strict=True)]
    ),
    divergence("jensen_shannon"): lambda p, q: entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2,
    divergence("renyi", order=0.9): lambda p, q: (p**0.9 * q**0.1).sum(-1).log() / (0.9 - 1),
    divergence("hellinger"): lambda p, q: (1 - (p * q).sqrt().sum(-1)).sqrt(),
    divergence("wasserstein"): lambda p, q: (p.cumsum(-1) - q.cumsum(-1)).abs().sum(-1),
    divergence("chi_squared"): lambda p, q: ((p - q) ** 2 / q).sum(-1),
    nested_risk("entropic", mu=0.7): lambda p, q: (q * (q / p) ** 0.7).sum(-1).log() / 0.7,
}


def brute(model, reference, batch, signal) -> torch.Tensor:
    return padded_stack(
        [
            [
                EXPECTED[signal](cell_logps(model, cell).exp(), cell_logps(reference, cell).exp().detach())
                for cell in example.cells
            ]
            for example in batch
        ]
    )


@pytest.fixture(params=["tied", "lone", "chunked"])
def policy(request, monkeypatch):
    if request.param == "chunked":
        monkeypatch.setattr(head, "FEWEST_ROWS", 7)
        monkeypatch.setattr(head, "CHUNK_BYTES", 1)
        monkeypatch.setattr(head, "KEPT_BYTES", 0)
    return small_gpt2(tie_word_embeddings=request.param == "tied")


@pytest.mark.parametrize(
    "signal", EXPECTED, ids=lambda signal: "-".join((signal.name, *map(str, dict(signal.options).values())))
)
def test_values_and_gradients(policy, signal: Signal) -> None:
    reference, batch = small_gpt2(seed=5), examples(*PAIRS)
    alone = copy.deepcopy(policy)
    scored = Language.score(policy, pack(batch), frozenset({signal}), others={"reference": reference})[""]
    expected = brute(alone, reference, batch, signal)
    torch.testing.assert_close(scored.signals[signal], expected, atol=1e-10, rtol=1e-8)
    weights = weights_like(expected)
    slope = gradients(policy, (scored.signals[signal] * weights).sum() + scored.logps.sum())
    logps = Language.score(alone, pack(batch))[""].logps
    assert relative_error(slope, gradients(alone, (expected * weights).sum() + logps.sum())) < 1e-8
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_all_at_once_and_without_gradient(policy) -> None:
    reference, batch = small_gpt2(seed=5), examples(*PAIRS)
    with torch.no_grad():
        scored = Language.score(policy, pack(batch), frozenset(EXPECTED), others={"reference": reference})[""]
        for signal in EXPECTED:
            expected = brute(policy, reference, batch, signal)
            torch.testing.assert_close(scored.signals[signal], expected, atol=1e-10, rtol=1e-8)


def test_detached_signals_take_the_plain_way(policy) -> None:
    signal = Signal("entropy", options=(("detached", 1),))
    batch = examples(*PAIRS)
    scored = Language.score(policy, pack(batch), frozenset({signal}))[""]
    assert not scored.signals[signal].requires_grad
    torch.testing.assert_close(scored.signals[signal], brute(policy, policy, batch, ENTROPY).detach())
    slope = gradients(policy, scored.logps.sum())
    torch.testing.assert_close(slope, gradients(policy, Language.score(policy, pack(batch))[""].logps.sum()))


def test_detached_beside_a_differentiable_one(policy) -> None:
    detached = Signal("entropy", options=(("detached", 1),))
    batch = examples(*PAIRS)
    found = Language.score(policy, pack(batch), frozenset({detached, TOP_MASS}))[""].signals
    slope = gradients(policy, found[detached].sum() + found[TOP_MASS].sum())
    only = Language.score(policy, pack(batch), frozenset({TOP_MASS}))[""].signals[TOP_MASS]
    torch.testing.assert_close(slope, gradients(policy, only.sum()))


def test_states_of_every_view(policy) -> None:
    first, second = examples((8, (5, 3)), (6, (4, 1)))
    batch = [
        TokenExample(first.cells, {}, 0, views={"other": second.cells}),
        TokenExample(second.cells, {}, 1, views={"other": first.cells}),
    ]
    scored = Language.score(policy, pack(batch), frozenset({STATE, PROMPT_STATE}))
    for view, rows in (("", (first, second)), ("other", (second, first))):
        for n, example in enumerate(rows):
            for r, cell in enumerate(example.cells):
                ids = torch.from_numpy(cell.context), torch.from_numpy(cell.response)
                hidden = policy.base_model(input_ids=torch.cat(ids)[None]).last_hidden_state[0]
                found = scored[view].signals
                torch.testing.assert_close(found[STATE][n, r], hidden[-1])
                torch.testing.assert_close(found[PROMPT_STATE][n, r], hidden[len(cell.context) - 1])


def test_states_have_a_gradient_and_padded_rows_have_states(policy) -> None:
    batch = examples(*PAIRS)
    Language.adapt(policy)
    found = Language.score(policy, pack(batch), frozenset({STATE}))[""].signals[STATE]
    weights = weights_like(found)
    slope = gradients(policy, (found * weights).sum())
    Language.adapt(policy, packing="padded")
    padded = Language.score(policy, pack(batch), frozenset({STATE}))[""].signals[STATE]
    torch.testing.assert_close(padded, found)
    torch.testing.assert_close(gradients(policy, (padded * weights).sum()), slope)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("targets", [["c_attn", "c_fc"], ["c_attn", "lm_head"]])
def test_divergence_from_the_policy_without_its_adapters(targets: list[str]) -> None:
    base = small_gpt2(tie_word_embeddings=False)
    policy = peft.get_peft_model(
        copy.deepcopy(base), peft.LoraConfig(target_modules=targets, init_lora_weights=False)
    )
    alone = copy.deepcopy(policy)
    batch = examples(*PAIRS)
    others = {"reference": SecondModel(policy, partial(adapters_off, policy))}
    scored = Language.score(policy, pack(batch), frozenset({FORWARD_KL}), others=others)[""].signals[
        FORWARD_KL
    ]
    expected = brute(alone, base, batch, FORWARD_KL)
    torch.testing.assert_close(scored, expected, atol=1e-10, rtol=1e-8)
    assert expected.max() > 1e-3
    slope = gradients(policy, scored.sum())
    assert relative_error(slope, gradients(alone, expected.sum())) < 1e-8


def test_own_head_models_have_signals_too() -> None:
    model, batch = build("recurrent_gemma", num_hidden_layers=3, attention_window_size=64), examples(*PAIRS)
    alone = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="padded rows"):
        Language.adapt(model)
    scored = Language.score(model, pack(batch), frozenset({ENTROPY, STATE}))[""]
    torch.testing.assert_close(
        scored.signals[ENTROPY], brute(alone, alone, batch, ENTROPY), atol=1e-4, rtol=1e-4
    )
    assert scored.signals[STATE].shape == (3, 2, 32)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (Signal("entrpy"), "did you mean 'entropy'"),
        (FORWARD_KL, "'reference', which is not among the models given"),
    ],
)
def test_signals_that_cannot_be_measured(signal: Signal, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        Language.score(build("llama"), pack(examples((4, (3, 2)))), frozenset({signal}))


def predicting(cell) -> slice:
    """The positions that predict the tokens of a response."""
    return slice(len(cell.context) - 1, len(cell.context) + len(cell.response) - 1)


def whole_text(cell) -> torch.Tensor:
    return torch.cat([torch.from_numpy(cell.context), torch.from_numpy(cell.response)])[None]


@pytest.mark.parametrize("packing", ["auto", "padded"])
def test_token_states_are_those_before_the_token(packing: str) -> None:
    policy, batch = small_gpt2(), examples(*PAIRS)
    alone = copy.deepcopy(policy)
    Language.adapt(policy, packing=packing)
    token_state, token_states = Signal("token_state"), Signal("token_states")
    scored = Language.score(policy, pack(batch), frozenset({token_state, token_states}))[""]
    last, layers = scored.signals[token_state], scored.signals[token_states]
    assert last.shape == (*scored.mask.shape, 32)
    assert layers.shape == (*scored.mask.shape, 2, 32)
    assert (last[~scored.mask] == 0).all() and (layers[~scored.mask] == 0).all()
    weights, expected = weights_like(layers), torch.zeros(())
    for n, example in enumerate(batch):
        for r, cell in enumerate(example.cells):
            states = alone.base_model(whole_text(cell), output_hidden_states=True).hidden_states[1:]
            states = torch.stack(states, -2)[0, predicting(cell)]
            length = len(cell.response)
            torch.testing.assert_close(layers[n, r, :length], states)
            torch.testing.assert_close(last[n, r, :length], states[:, -1])
            expected = expected + (states * weights[n, r, :length]).sum()
    slope = gradients(policy, (layers * weights).sum())
    assert relative_error(slope, gradients(alone, expected)) < 1e-8


def part_of(layer: torch.nn.Module, part: str) -> torch.nn.Module:
    if part == "residual":
        return layer
    names = ("mlp",) if part == "mlp" else ("attn", "self_attn", "attention")
    return next(getattr(layer, name) for name in names if hasattr(layer, name))


def outputs_of(modules: list[torch.nn.Module], run) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []

    def keep(module, inputs, output) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    hooks = [module.register_forward_hook(keep) for module in modules]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
@pytest.mark.parametrize("part", ["mlp", "attention", "residual"])
def test_mean_activations_are_those_of_the_layers_parts(family: str, part: str) -> None:
    policy, batch = build(family), examples(*PAIRS)
    body = copy.deepcopy(policy).base_model
    signal = Signal("mean_activations", options=(("part", part),))
    found = Language.score(policy, pack(batch), frozenset({signal}))[""].signals[signal]
    assert not found.requires_grad
    layers = body.h if family == "gpt2" else body.layers
    for n, example in enumerate(batch):
        for r, cell in enumerate(example.cells):
            seen = outputs_of([part_of(layer, part) for layer in layers], partial(body, whole_text(cell)))
            expected = torch.stack([one[0].mean(-1)[predicting(cell)] for one in seen], -1)
            torch.testing.assert_close(found[n, r, : len(cell.response)], expected, atol=1e-5, rtol=1e-4)
            assert expected.abs().max() > 1e-3
