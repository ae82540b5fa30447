"""Encoder–decoders: numbers of their own forwards with labels, every prompt encoded once."""

from __future__ import annotations

import copy
import math

import numpy as np
import peft
import pytest
import torch
from torch import Tensor, nn

from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.scoring import Language
from prefero.models.encoder_decoder.kind import EncoderDecoder
from prefero.models.encoder_decoder.scoring import EncoderDecoderRows, arrange
from prefero.objectives import PreferenceBatch, method
from prefero.objectives.signals import (
    ENTROPY,
    PROMPT_STATE,
    STATE,
    TOKEN_STATE,
    TOKEN_STATES,
    forward_kl,
    top_k_mass,
)
from tests.models.brute_force import PAIRS, examples, gradients, padded_stack, relative_error, weights_like
from tests.models.causal.families import build as build_decoder
from tests.models.encoder_decoder.families import BART, FAMILIES, T5, build, own_logps, own_rows

MAIN = ("t5", "bart")
RAGGED = ((3, (4, 7, 1)), (9, (2,)), (5, (6, 3)))


def expected(model, batch) -> Tensor:
    """Of examples with equally many responses."""
    return padded_stack([[own_logps(model, cell) for cell in example.cells] for example in batch])


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_and_gradients_are_those_of_the_models_forward_with_labels(family: str) -> None:
    model, batch = FAMILIES[family]().double(), examples(*PAIRS)
    alone = copy.deepcopy(model)
    scored, wanted = EncoderDecoder.score(model, arrange(batch))[""], expected(alone, batch)
    assert (scored.logps - wanted).abs().max() < 1e-6
    weights = weights_like(wanted)
    slope = gradients(model, (scored.logps * weights).sum())
    assert relative_error(slope, gradients(alone, (wanted * weights).sum())) < 1e-6
    assert torch.equal(scored.mask.sum(-1), torch.tensor([[12, 5], [1, 9], [6, 6]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_logit_is_made_that_nobody_reads(family: str) -> None:
    """A family whose head is not understood would fall back to logits of whole padded rows."""
    model = FAMILIES[family]()
    EncoderDecoder.adapt(model)
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].shape[:-1].numel())
    )
    EncoderDecoder.score(model, arrange(examples((4, (1, 9)))))
    assert seen == [10]


@pytest.mark.parametrize("family", MAIN)
def test_a_response_costs_a_decoder_row_and_a_prompt_one_encoder_row(family: str) -> None:
    model, batch = FAMILIES[family](), examples((4, (3, 5, 2, 6)), (7, (2, 2, 3, 4)))
    same = TokenExample(batch[0].cells[:2], {}, 2)
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}
    EncoderDecoder.adapt(model)
    for name, part in (("encoder", model.get_encoder()), ("decoder", model.get_decoder())):
        part.register_forward_hook(
            lambda module, inputs, output, name=name: seen[name].append(len(output.last_hidden_state))
        )
    EncoderDecoder.score(model, arrange([*batch, same]))
    assert seen == {"encoder": [2], "decoder": [8]}


@pytest.mark.parametrize("family", MAIN)
def test_lists_of_any_lengths_are_padded_and_views_scored_beside_them(family: str) -> None:
    model, batch = FAMILIES[family](), examples(*RAGGED)
    other = examples(*RAGGED, seed=9)
    both = [
        TokenExample(
            one.cells,
            {},
            one.index,
            {"other": tuple(Cell(two.cells[0].context, c.response) for c in one.cells)},
        )
        for one, two in zip(batch, other, strict=True)
    ]
    scored = EncoderDecoder.score(model, arrange(both))
    assert scored.keys() == {"", "other"}
    for view in scored:
        assert scored[view].logps.shape == (3, 3, 7)
        for e, example in enumerate(both):
            cells = example.cells if view == "" else example.views[view]
            for r in range(3):
                mask = scored[view].mask[e, r]
                if r >= len(cells):
                    assert not mask.any()
                    continue
                assert mask.sum() == len(cells[r].response)
                torch.testing.assert_close(
                    scored[view].logps[e, r][mask], own_logps(model, cells[r]), atol=2e-5, rtol=1e-5
                )
        assert (scored[view].logps[~scored[view].mask] == 0).all()
    assert not torch.equal(scored[""].logps, scored["other"].logps)


def test_holes_are_read_but_not_scored() -> None:
    model, (example,) = build("t5", **T5), examples((4, (5, 5)))
    whole = EncoderDecoder.score(model, arrange([example]))[""].logps
    holed = tuple(
        Cell(cell.context, cell.response, np.array([True, False, True, True, False]))
        for cell in example.cells
    )
    both = TokenExample(example.cells, {}, 0, {"holed": holed})
    scored = EncoderDecoder.score(model, arrange([both]))["holed"]
    assert scored.mask[0].tolist() == [[True, False, True, True, False]] * 2
    torch.testing.assert_close(scored.logps, whole.where(scored.mask, 0))


@pytest.mark.parametrize("family", MAIN)
def test_states_are_those_of_the_decoder(family: str) -> None:
    """Of the final token after it was read, not where it is predicted; of the prompt where nothing of the
    response is known."""
    model, batch = FAMILIES[family](), examples(*RAGGED)
    scored = EncoderDecoder.score(model, arrange(batch), frozenset({STATE, PROMPT_STATE, TOKEN_STATE}))[""]
    for e, example in enumerate(batch):
        for r, cell in enumerate(example.cells):
            ids = torch.from_numpy(cell.context)[None]
            read = torch.from_numpy(np.concatenate(([2], cell.response)))[None]
            output = type(model).forward(
                model, input_ids=ids, decoder_input_ids=read, output_hidden_states=True
            )
            states = output.decoder_hidden_states[-1][0]
            found = scored.signals[STATE][e, r], scored.signals[PROMPT_STATE][e, r]
            torch.testing.assert_close(found[0], states[-1], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(found[1], states[0], atol=2e-5, rtol=1e-4)
            mine = scored.signals[TOKEN_STATE][e, r][scored.mask[e, r]]
            torch.testing.assert_close(mine, states[:-1], atol=2e-5, rtol=1e-4)
    assert (scored.signals[TOKEN_STATE][~scored.mask] == 0).all()
    prompts = scored.signals[PROMPT_STATE]
    torch.testing.assert_close(prompts[0, 0], prompts[0, 1], atol=2e-5, rtol=1e-4)
    scored.signals[STATE].sum().backward()
    assert all(
        part.grad.abs().sum() > 0 for part in model.get_encoder().parameters() if part.grad is not None
    )


@pytest.mark.parametrize("family", ("t5", "bart", "t5gemma"))
def test_token_signals_are_those_of_whole_distributions(family: str) -> None:
    model, batch = FAMILIES[family](), examples(*PAIRS)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.05)
    signals = (ENTROPY, forward_kl(), top_k_mass(3))
    scored = EncoderDecoder.score(model, arrange(batch), frozenset(signals), others={"reference": other})[""]
    for e, example in enumerate(batch):
        for r, cell in enumerate(example.cells):
            p, q = (own_rows(one, cell).detach() for one in (model, other))
            wanted = (
                -(p.exp() * p).sum(-1),
                (q.exp() * (q - p)).sum(-1),
                p.exp().topk(3, -1).values.sum(-1),
            )
            for signal, values in zip(signals, wanted, strict=True):
                found = scored.signals[signal][e, r, : len(values)]
                torch.testing.assert_close(found, values, atol=2e-5, rtol=1e-4)
    assert scored.signals[forward_kl()].requires_grad
    assert (scored.signals[ENTROPY][~scored.mask] == 0).all()


def test_a_signal_that_encoder_decoders_lack_is_refused() -> None:
    model, rows = build("t5", **T5), arrange(examples(*PAIRS))
    with pytest.raises(PreferoError, match=r"gives no signal 'token_states'; of states, there are state"):
        EncoderDecoder.score(model, rows, frozenset({TOKEN_STATES}))
    with pytest.raises(PreferoError, match="compares with the model 'reference'"):
        EncoderDecoder.score(model, rows, frozenset({forward_kl()}))


def test_each_kind_of_model_is_sent_to_its_own_scorer() -> None:
    with pytest.raises(PreferoError, match=r"LlamaForCausalLM has no encoder.*causal\.scoring\.Language"):
        EncoderDecoder.adapt(build_decoder("llama"))
    with pytest.raises(PreferoError, match=r"T5ForConditionalGeneration is an encoder.*kind\.EncoderDecoder"):
        Language.adapt(build("t5", **T5))
    with pytest.raises(PreferoError, match="Linear is not a transformers model"):
        EncoderDecoder.adapt(nn.Linear(2, 2))


def test_a_model_that_would_get_wrong_numbers_is_refused() -> None:
    """A decoder that reads the prompt's padding is wrong without a sign of it."""
    model = build("t5", **T5)
    model.get_encoder().register_forward_hook(
        lambda module, inputs, output: type(output)(
            last_hidden_state=output.last_hidden_state * len(output[0])
        )
    )
    with pytest.raises(PreferoError, match=r"cannot be scored: log-probabilities differ by"):
        EncoderDecoder.adapt(model)


def test_a_model_whose_own_forward_takes_no_labels_is_refused() -> None:
    """FSMT compares labels with logits of another length."""
    sides = {"langs": ["a", "b"], "src_vocab_size": 67, "tgt_vocab_size": 67}
    with pytest.raises(PreferoError, match="its own forward with labels fails: Expected input batch_size"):
        EncoderDecoder.adapt(build("fsmt", **BART, **sides))


def test_adapters_and_wrappers_are_seen_through() -> None:
    base, batch = build("bart", **BART), examples(*PAIRS)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(base, config)
    EncoderDecoder.adapt(model)
    wrapped = nn.DataParallel(model)
    alone = copy.deepcopy(model)
    scored, wanted = (
        EncoderDecoder.score(wrapped, arrange(batch))[""].logps,
        expected(alone.get_base_model(), batch),
    )
    assert (scored - wanted).abs().max() < 2e-5
    weights = weights_like(wanted)
    slope = gradients(model, (scored * weights).sum())
    assert relative_error(slope, gradients(alone, (wanted * weights).sum())) < 1e-5


def test_everything_else_is_as_before() -> None:
    model = build("t5", **T5)
    alone, ids = copy.deepcopy(model), torch.randint(3, 67, (2, 9))
    EncoderDecoder.adapt(model)
    assert list(model.state_dict()) == list(alone.state_dict())
    settings = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(ids, **settings), alone.generate(ids, **settings))


def test_sums_over_the_vocabulary_are_float32_in_mixed_precision() -> None:
    model, rows = build("bart", **BART), arrange(examples(*PAIRS))
    exact = EncoderDecoder.score(model, rows)[""].logps
    with torch.autocast("cpu", torch.bfloat16):
        rough = EncoderDecoder.score(model, rows)[""].logps
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.5


def pairs_batch(
    policy,
    reference,
    rows: EncoderDecoderRows,
    signals=frozenset(),
    columns=None,
    roles=("chosen", "rejected"),
) -> PreferenceBatch:
    with torch.no_grad():
        fixed = EncoderDecoder.score(reference, rows)[""]
    models = {"policy": EncoderDecoder.score(policy, rows, signals)[""], "reference": fixed}
    return PreferenceBatch(models, columns or {}, roles)


@pytest.mark.parametrize("family", MAIN)
def test_dpo_trains_one(family: str) -> None:
    policy = build(family, seed=1, **(T5 if family == "t5" else BART))
    reference, rows, objective = copy.deepcopy(policy), arrange(examples(*PAIRS)), method("dpo")
    before = pairs_batch(policy, reference, rows)
    torch.testing.assert_close(objective.loss(before).item(), math.log(2), atol=1e-6, rtol=0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    for _ in range(20):
        objective.loss(pairs_batch(policy, reference, rows)).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = pairs_batch(policy, reference, rows)
    assert objective.loss(after) < 0.5
    change = (after.models["policy"].logps - before.models["policy"].logps).sum(-1)
    assert (change[:, 0] > change[:, 1]).all()


def test_a_value_of_the_prompt_is_learnt_beside_the_policy() -> None:
    """DRO-V, which was found on an encoder–decoder: whatever the value is meanwhile, a response gains on one
    of the same prompt that scores less."""
    torch.manual_seed(0)
    policy = build("t5", seed=1, **T5)
    rows = arrange(examples(*PAIRS))
    reference, signals = copy.deepcopy(policy), frozenset({PROMPT_STATE})
    columns = {"score": torch.tensor([[1.0, -1.0]]).expand(3, 2)}

    def batch() -> PreferenceBatch:
        return pairs_batch(policy, reference, rows, signals, columns, ())

    objective = method("dro_v")
    before = batch()
    first = objective.loss(before).item()
    weights = [weight.detach().clone() for weight in objective.parameters()]
    optimizer = torch.optim.AdamW([*policy.parameters(), *objective.parameters()], lr=1e-3)
    for _ in range(30):
        objective.loss(batch()).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = batch()
    assert objective.loss(after) < 0.5 * first
    change = (after.models["policy"].logps - before.models["policy"].logps).sum(-1)
    assert (change[:, 0] > change[:, 1]).all()
    assert len(weights) and all(
        not torch.equal(old, new) for old, new in zip(weights, objective.parameters(), strict=True)
    )
