"""Sequences as responses of discrete diffusion models, against the paper's rates and sums written out."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from prefero.errors import PreferoError
from prefero.models.discrete_diffusion.noise import COSINE, LINEAR, Masking, Uniform
from prefero.models.discrete_diffusion.sampling import sample, unmask
from prefero.models.discrete_diffusion.scoring import LATEST, DiscreteDiffusionAdapter, Sequences
from prefero.models.discrete_diffusion.timed import TimedForMaskedLM
from prefero.objectives import PreferenceBatch, method
from tests.models.brute_force import rate_score

TOKENS = 5
MASK = 5
MASKED = DiscreteDiffusionAdapter(Masking(MASK))
SCHEDULES = {"linear": LINEAR, "cosine": COSINE}


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bert(seed: int = 0) -> BertForMaskedLM:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=TOKENS + 1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        initializer_range=0.5,
        pad_token_id=None,
    )
    return BertForMaskedLM(config).double().eval()


def strings(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(TOKENS, shape, generator=numbers(seed))


def by_hand(model: nn.Module, sequences: Sequences, states, schedule) -> Tensor:
    """factor · Σ over masked positions of log p(x₁ | x_t), every state alone, ``[example response draw]``."""
    examples, responses, draws, positions = states.states.shape
    result = torch.zeros(examples, responses, draws, dtype=torch.float64)
    for e, r, k in itertools.product(range(examples), range(responses), range(draws)):
        state, t = states.states[e, r, k], states.times[e, k].double().requires_grad_()
        (speed,) = torch.autograd.grad(schedule.kept(t), t)
        logps = model(input_ids=state[None]).logits[0, :, :TOKENS].log_softmax(-1)
        masked = [d for d in range(positions) if state[d] == MASK]
        total = sum(logps[d, sequences.tokens[e, r, d]] for d in masked)
        result[e, r, k] = speed / (1 - schedule.kept(t)).detach() * total
    return result


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scores_and_gradients_are_the_masked_tokens_of_single_states(schedule: str) -> None:
    """The mask's own logit is in no softmax, tokens that are not masked are in no sum, and no sum is a mean
    over positions."""
    model, sequences = bert(), Sequences(strings(3, 2, 6))
    adapter = DiscreteDiffusionAdapter(Masking(MASK), SCHEDULES[schedule])
    states = adapter.draw(sequences, numbers(), draws=3)
    scored = adapter.score(model, states)
    expected = by_hand(model, sequences, states, SCHEDULES[schedule]) / 3
    torch.testing.assert_close(scored.logps, expected, rtol=1e-6, atol=1e-9)
    assert scored.mask.all() and scored.mask.shape == (3, 2, 3)
    towards = torch.randn(3, 2, 3, generator=numbers(5), dtype=torch.float64)
    weights = list(model.parameters())
    found, wanted = (
        torch.autograd.grad((values * towards).sum(), weights, allow_unused=True, retain_graph=True)
        for values in (scored.logps, expected)
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_the_loss_is_the_formula_of_the_paper() -> None:
    """−log σ(β D(x_t^w | x₁^w) − β D(x_t^l | x₁^l)), with plain DPO as the objective."""
    policy, reference, sequences = bert(), bert(1), Sequences(strings(3, 2, 6))
    states = MASKED.draw(sequences, numbers())
    with torch.no_grad():
        fixed = MASKED.score(reference, states)
    loss = method("dpo", beta=0.5).loss(
        PreferenceBatch({"policy": MASKED.score(policy, states), "reference": fixed})
    )
    ratio = by_hand(policy, sequences, states, LINEAR) - by_hand(reference, sequences, states, LINEAR)
    expected = nn.functional.softplus(-0.5 * (ratio[:, 0, 0] - ratio[:, 1, 0])).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    loss.backward()
    assert all(weight.grad is None for weight in reference.parameters())


def rates(noise, logps: Tensor, state: int, factor: float) -> Tensor:
    """A model's rates from a state of one position to every other token."""
    jump = factor * logps.exp()
    return jump if isinstance(noise, Masking) else torch.cat((jump[:state], jump[state + 1 :]))


@pytest.mark.parametrize("noise", [Masking(MASK), Uniform(TOKENS)], ids=["masking", "uniform"])
def test_the_general_formula_with_a_noises_rates_is_its_closed_form(noise) -> None:
    """D = Σ_j [q log R/R_ref + R_ref − R] over the other states: for uniform noise, what leaves a state
    without reaching the data does not cancel."""
    factor = 1 / (1 - 0.7)
    logits = torch.randn(2, TOKENS + 1, generator=numbers(), dtype=torch.float64)
    logps = noise.logps(logits)
    for token, state in itertools.product(
        range(TOKENS), [MASK] if isinstance(noise, Masking) else range(TOKENS)
    ):
        data = torch.full((logps.shape[-1],), -math.inf, dtype=torch.float64)
        data[token] = 0.0
        conditional = rates(noise, data, state, factor)
        policy, reference = (rates(noise, of, state, factor)[: len(conditional)] for of in logps)
        found = factor * noise.explained(logps, torch.tensor([token] * 2), torch.tensor([state] * 2))
        general = rate_score(conditional, policy) - rate_score(conditional, reference)
        torch.testing.assert_close(found[0] - found[1], general)


def test_what_explains_the_datas_rates_best_are_these_rates() -> None:
    conditional = torch.tensor([[0.7, 0.0, 0.2]], dtype=torch.float64)
    own = torch.tensor([[0.3, 0.4, 0.2]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(rate_score(conditional, own).sum(), own)
    torch.testing.assert_close(slope, conditional / own.detach() - 1)
    nearer = own.detach().lerp(conditional, 0.5)
    values = [rate_score(conditional, of).item() for of in (own.detach(), nearer, conditional)]
    assert values == sorted(values)


@pytest.mark.parametrize("noise", [Masking(MASK), Uniform(TOKENS)], ids=["masking", "uniform"])
def test_a_policy_equal_to_its_reference_has_no_margin_for_any_draw(noise) -> None:
    model, adapter = bert(), DiscreteDiffusionAdapter(noise)
    states = adapter.draw(Sequences(strings(4, 2, 6)), numbers(), draws=2)
    batch = PreferenceBatch({one: adapter.score(model, states) for one in ("policy", "reference")})
    for key in ("dpo", "ipo", "diffusion_dpo"):
        assert (method(key).comparisons(batch).margins == 0).all()
    torch.testing.assert_close(method("dpo").loss(batch).item(), math.log(2))


@pytest.mark.parametrize("noise", [Masking(MASK), Uniform(TOKENS)], ids=["masking", "uniform"])
def test_tokens_that_are_there_or_times_are_the_same_sum(noise) -> None:
    model, sequences = bert(), Sequences(strings(3, 2, 6))
    times, positions = (DiscreteDiffusionAdapter(noise, tokens=one) for one in ("time", "position"))
    states = times.draw(sequences, numbers(), draws=2)
    whole, each = times.score(model, states), positions.score(model, states)
    assert whole.logps.shape == (3, 2, 2) and each.logps.shape == (3, 2, 6)
    torch.testing.assert_close(each.logps.sum(-1), whole.logps.sum(-1))
    doubled = DiscreteDiffusionAdapter(noise, scale=2.0)
    torch.testing.assert_close(doubled.score(model, states).logps, 2 * whole.logps)


def test_times_are_shared_by_the_responses_and_states_if_wanted() -> None:
    same = Sequences(strings(50, 1, 6).expand(50, 3, 6))
    own = MASKED.draw(same, numbers(), draws=2)
    assert own.times.shape == (50, 2)
    assert (own.states[:, 1:] != own.states[:, :1]).any()
    shared = MASKED.draw(same, numbers(), draws=2, noise_per="example")
    assert torch.equal(shared.states, shared.states[:, :1].expand_as(shared.states))
    assert (shared.states[:, :, 0] != shared.states[:, :, 1]).any()


def test_draws_depend_on_the_generator_alone() -> None:
    sequences = Sequences(strings(20, 2, 6))
    torch.manual_seed(0)
    first = MASKED.draw(sequences, numbers(3))
    torch.manual_seed(1)
    second = MASKED.draw(sequences, numbers(3))
    assert torch.equal(first.states, second.states) and torch.equal(first.times, second.times)
    assert not torch.equal(first.states, MASKED.draw(sequences, numbers(4)).states)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_token_is_kept_as_often_as_the_schedule_says(schedule: str) -> None:
    kept = SCHEDULES[schedule].kept
    for noise, still in ((Masking(MASK), 0.0), (Uniform(TOKENS), 1 / TOKENS)):
        adapter = DiscreteDiffusionAdapter(noise, SCHEDULES[schedule])
        sequences = Sequences(strings(4000, 1, 20))
        states = adapter.draw(sequences, numbers(), draws=1)
        share = (states.states[:, :, 0] == sequences.tokens).double().mean((1, 2))
        wanted = kept(states.times[:, 0]).double()
        wanted = wanted + (1 - wanted) * still
        assert (share - wanted).mean().abs() < 0.005
        early = states.times[:, 0] < 0.2
        assert (share - wanted)[early].mean().abs() < 0.02


def test_times_are_uniform_alone_spread_together_and_never_at_the_end() -> None:
    times = MASKED.draw(Sequences(strings(4000, 1, 2)), numbers(), draws=4).times
    assert times.min() >= 0 and times.max() <= LATEST
    assert (times.sort(-1).values.diff(dim=-1) - LATEST / 4).abs().max() < 1e-6
    for draw in range(4):
        quarters = (times[:, draw] / LATEST * 4).long().bincount(minlength=4)
        assert (quarters / 4000 - 0.25).abs().max() < 0.03
    assert LINEAR.rate(times).max() <= 1 / (1 - LATEST) * 1.01


class Table(nn.Module):
    """The posterior of strings with given probabilities under either noise: a denoiser that errs nowhere."""

    def __init__(self, probabilities: Tensor, uniform: bool = False) -> None:
        super().__init__()
        self.probabilities, self.uniform = nn.Parameter(probabilities), uniform
        self.size = probabilities.shape[0]
        self.strings = torch.cartesian_prod(*[torch.arange(self.size)] * probabilities.dim())

    def forward(self, input_ids: Tensor, attention_mask: Tensor, time: Tensor | None = None):
        agree = self.strings == input_ids[:, None]
        if self.uniform:
            kept = time[:, None, None].double()
            fits = torch.where(agree, kept + (1 - kept) / self.size, (1 - kept) / self.size)
        else:
            fits = (agree | (input_ids[:, None] == self.size)).double()
        joint = fits.prod(-1) * self.probabilities.flatten()
        choice = nn.functional.one_hot(self.strings, self.size).double()
        logits = torch.einsum("bs,sdk->bdk", joint, choice).log()
        return SimpleNamespace(logits=nn.functional.pad(logits, (0, 1)))


def distribution(seed: int = 0) -> Tensor:
    weights = torch.rand(3, 3, generator=numbers(seed), dtype=torch.float64) ** 3 + 0.02
    return weights / weights.sum()


def test_the_mean_over_times_and_masks_is_the_exact_likelihood_bound() -> None:
    """Of two positions: the mean over both orders of their log-likelihood, with no division by the number of
    masked tokens, and 1/(1 − t) where a position is masked with probability 1 − t."""
    logits = torch.randn(4, 4, 2, 4, generator=numbers(), dtype=torch.float64)

    def model(input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=logits[input_ids[:, 0], input_ids[:, 1]])

    def logp(state: tuple[int, int], position: int) -> Tensor:
        return logits[state][position, :3].log_softmax(-1)[tokens[position]]

    tokens = torch.tensor([0, 2])
    orders = [logp((3, 3), 0) + logp((0, 3), 1), logp((3, 3), 1) + logp((3, 2), 0)]
    adapter = DiscreteDiffusionAdapter(Masking(3))
    states = adapter.draw(Sequences(tokens.expand(20_000, 1, 2)), numbers(), draws=32)
    found = adapter.score(model, states).logps.sum(-1).mean()
    torch.testing.assert_close(found, sum(orders) / 2, rtol=0.01, atol=0)


@pytest.mark.parametrize("how", ["unmask", "masking", "uniform"])
def test_samples_have_the_distribution_that_the_model_knows(how: str) -> None:
    uniform = how == "uniform"
    model, empty = Table(distribution(), uniform), torch.zeros(20_000, 2, dtype=torch.int64)
    if how == "unmask":
        found = unmask(model, Masking(3), empty, numbers())
    else:
        adapter = DiscreteDiffusionAdapter(Uniform(3) if uniform else Masking(3), timed=uniform)
        found = sample(model, adapter, empty, numbers(), steps=100)
    counts = (3 * found[:, 0] + found[:, 1]).bincount(minlength=9).view(3, 3) / len(found)
    torch.testing.assert_close(counts.double(), distribution(), atol=0.015, rtol=0)


def test_given_positions_are_seen_and_neither_corrupted_nor_scored_nor_made() -> None:
    model, generated = bert(), torch.tensor([False, False, True, True, True, True])
    tokens = strings(3, 2, 6)
    tokens[..., 0] = MASK  # an id that no generated token may have
    sequences = Sequences(tokens, generated.expand_as(tokens))
    states = MASKED.draw(sequences, numbers(), draws=4)
    assert (states.states[..., :2] == tokens[:, :, None, :2]).all()
    assert (states.states[..., 2:] == MASK).any()
    each = DiscreteDiffusionAdapter(Masking(MASK), tokens="position").score(model, states)
    assert torch.equal(each.mask, generated.expand_as(tokens))
    assert (each.logps[~each.mask] == 0).all() and each.logps.isfinite().all()
    each.logps.sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
    made = unmask(model, Masking(MASK), tokens[:, 0], numbers(), generated=generated.expand(3, 6))
    assert torch.equal(made[:, :2], tokens[:, 0, :2]) and (made[:, 2:] < TOKENS).all()


def test_padding_and_absent_responses_change_nothing() -> None:
    model, tokens = bert(), strings(2, 2, 6)
    there = torch.ones_like(tokens, dtype=torch.bool)
    there[0, 1, 4:] = False
    there[1, 1] = False
    states = MASKED.draw(Sequences(tokens, there=there), numbers())
    scored = MASKED.score(model, states)
    assert torch.equal(scored.mask[..., 0], torch.tensor([[True, True], [True, False]]))
    assert scored.logps[1, 1] == 0
    short = states.states[0, 1, 0, :4]
    logps = model(input_ids=short[None]).logits[0, :, :TOKENS].log_softmax(-1)
    rate = LINEAR.rate(states.times[0, 0])
    wanted = rate * sum(logps[d, tokens[0, 1, d]] for d in range(4) if short[d] == MASK)
    torch.testing.assert_close(scored.logps[0, 1, 0], wanted, rtol=1e-6, atol=1e-9)
    changed = tokens.masked_fill(~there, 0)
    again = MASKED.draw(Sequences(changed, there=there), numbers())
    torch.testing.assert_close(MASKED.score(model, again).logps, scored.logps)
    assert method("dpo").loss(PreferenceBatch({"policy": scored, "reference": scored})).isfinite()


def test_a_response_without_a_masked_position_is_still_compared() -> None:
    """Its term is 0; a pair dropped for it would bias the loss to noisy states."""
    model, sequences = bert(), Sequences(strings(40, 2, 1))
    states = MASKED.draw(sequences, numbers())
    clean = (states.states[..., 0] != MASK).any(-1).any(-1)
    scored = MASKED.score(model, states)
    assert clean.any() and scored.mask.all()
    margins = method("dpo").comparisons(
        PreferenceBatch({"policy": scored, "reference": MASKED.score(bert(1), states)})
    )
    assert margins.margins.shape == (40, 1)


def test_a_model_that_is_told_the_time_answers_by_it() -> None:
    model = TimedForMaskedLM.of(bert()).eval()
    adapter = DiscreteDiffusionAdapter(Uniform(TOKENS), timed=True)
    states = adapter.draw(Sequences(strings(3, 2, 6)), numbers(), draws=2)
    scored = adapter.score(model, states)
    scored.logps.sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in model.shift.parameters())
    ids, there = strings(1, 6), torch.ones(1, 6)
    early, late = (model(ids, there, torch.tensor([t])) for t in (0.1, 0.9))
    assert not torch.allclose(early.logits, late.logits)
    assert sample(model, adapter, strings(4, 6), numbers(), steps=3).max() < TOKENS


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(
        PreferoError, match="a response has token 5, which no way from the noise leads to: it is the mask"
    ):
        MASKED.draw(Sequences(torch.full((1, 2, 3), MASK)), numbers())
    states = MASKED.draw(Sequences(strings(1, 2, 3)), numbers())
    with pytest.raises(PreferoError, match=r"gives logits of shape \(2, 2, 6\) for \(2, 3\) tokens"):
        MASKED.score(lambda input_ids, attention_mask: torch.zeros(2, 2, 6), states)
    with pytest.raises(PreferoError, match="gives no logits"):
        MASKED.score(lambda input_ids, attention_mask: SimpleNamespace(), states)
