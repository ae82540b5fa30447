"""Discrete diffusion as a scorer: how well a model's jump rates explain the way from noise to a sequence.

A continuous-time Markov chain leads from noise (t = 0) to data (t = 1). At time t a position holds its token
with probability κ(t), and noise otherwise; it jumps to its token at the rate κ′(t) / (1 − κ(t)). A model
gives a probability p(x₁ | x_t) to every token at every position, and jumps to token j at that rate times
p(j). ::

    adapter = DiscreteDiffusionAdapter(Masking(mask_id))
    states = adapter.draw(Sequences(tokens), generator)
    models = {"policy": adapter.score(policy, states), "reference": adapter.score(reference, states)}
    loss = method("dpo", beta=0.5).loss(PreferenceBatch(models))

What stands for a log-probability is Σ_j [q(j) log R(j) − R(j)] over the rates R of a model out of the state,
with the rates q that the data give. Less the same of the reference, it is the term D(x_t | x₁) of D2-DPO
(Borso et al., 2025, arXiv 2503.08295), whose loss is thereby plain DPO; its expectation over t and x_t is a
difference of likelihood bounds. Times and states are drawn once, for the policy and the reference alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefero.errors import PreferoError
from prefero.models.diffusion import rows_of
from prefero.models.head import wide
from prefero.objectives.batch import TokenLogps

LATEST = 1 - 1e-3
"""Times end here: the rates grow without bound towards t = 1, and saturate what compares them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """``kept`` is κ(t), the probability that a position holds its token, 0 at t = 0 and 1 at t = 1; ``speed``
    is its derivative."""

    kept: Callable[[Tensor], Tensor]
    speed: Callable[[Tensor], Tensor]

    def rate(self, time: Float[Tensor, "*where"]) -> Float[Tensor, "*where"]:
        """κ′ / (1 − κ), at which positions leave the noise."""
        return self.speed(time) / (1 - self.kept(time))


LINEAR = Schedule(lambda time: time, torch.ones_like)
COSINE = Schedule(
    lambda time: 1 - (time * math.pi / 2).cos(), lambda time: math.pi / 2 * (time * math.pi / 2).sin()
)


class Noise(Protocol):
    """What stands where a token is gone, and what a model's probabilities say of its jumps."""

    def like(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Noise for every position of the tokens."""
        ...

    def moves(self, states: Tensor) -> Tensor:
        """Which positions still can jump."""
        ...

    def logps(self, logits: Float[Tensor, "*where vocabulary"]) -> Float[Tensor, "*where token"]:
        """Log-probabilities of the tokens that data are made of."""
        ...

    def explained(
        self,
        logps: Float[Tensor, "*where token"],
        tokens: Int[Tensor, "*where"],
        states: Int[Tensor, "*where"],
    ) -> Float[Tensor, "*where"]:
        """Σ_j [q(j) log R(j) − R(j)] of every position in units of its rate, up to what is the same for every
        model."""
        ...


@dataclass(frozen=True, slots=True)
class Masking:
    """A token that is gone is the ``mask`` token, which is no token of the data.

    The total rate out of a state is the same for all models, and cancels: what is left is the log-probability
    of the tokens at masked positions.
    """

    mask: int

    def like(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        return torch.full_like(tokens, self.mask)

    def moves(self, states: Tensor) -> Tensor:
        return states == self.mask

    def logps(self, logits: Tensor) -> Tensor:
        no_token = logits.new_tensor(-math.inf)
        return logits.index_fill(-1, torch.tensor(self.mask, device=logits.device), no_token).log_softmax(-1)

    def explained(self, logps: Tensor, tokens: Tensor, states: Tensor) -> Tensor:
        return torch.where(self.moves(states), _at(logps, tokens), 0)


@dataclass(frozen=True, slots=True)
class Uniform:
    """A token that is gone is any of the ``size`` tokens 0, 1, …, its own among them.

    A position that holds another token than its own jumps to that alone, which of the chains with these
    marginals is the one that jumps least (Campbell et al., 2024, arXiv 2402.04997). A model's total rate
    depends on the probability it gives the token that is there, so nothing cancels. The noise does not show
    in a state, so a model wants to be told the time.
    """

    size: int

    def like(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(self.size, tokens.shape, generator=generator, device=generator.device)
        return drawn.to(tokens.device)

    def moves(self, states: Tensor) -> Tensor:
        return torch.ones_like(states, dtype=torch.bool)

    def logps(self, logits: Tensor) -> Tensor:
        return logits[..., : self.size].log_softmax(-1)

    def explained(self, logps: Tensor, tokens: Tensor, states: Tensor) -> Tensor:
        jump = torch.where(states == tokens, 0, _at(logps, tokens))
        return jump + _at(logps, states).exp() - 1


def _at(logps: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of tokens; those beyond the data's tokens, at given positions, are not read."""
    return logps.gather(-1, tokens.clamp(max=logps.shape[-1] - 1)[..., None]).squeeze(-1)


def rate_score(
    conditional: Float[Tensor, "*where state"], rates: Float[Tensor, "*where state"]
) -> Float[Tensor, "*where"]:
    """Σ_j [q(j) log R(j) − R(j)] over the states j other than the present one, for any chain.

    ``conditional`` are the rates q that the data give, which may be 0; ``rates`` are a model's, above 0 where
    those are. It is largest at R = q; the difference of two models is D of D2-DPO.
    """
    jumps = conditional > 0
    logs = torch.where(jumps, rates, 1).log()
    return (torch.where(jumps, conditional * logs, 0) - rates).sum(-1)


@dataclass(frozen=True, slots=True)
class Sequences:
    """Candidates as tokens, padded where they are shorter or fewer than others.

    ``generated`` are the positions that the chain makes, the others of ``there`` are given (a prompt); where
    ``there`` is False is nothing. All are there and generated, if None. ``conditions`` are the model's other
    arguments, the same for all responses of an example, tensors with an example axis in front.
    """

    tokens: Int[Tensor, "example response position"]
    generated: Bool[Tensor, "example response position"] | None = None
    there: Bool[Tensor, "example response position"] | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def present(self) -> Bool[Tensor, "example response position"]:
        """The positions that there are."""
        return torch.ones_like(self.tokens, dtype=torch.bool) if self.there is None else self.there

    @property
    def scored(self) -> Bool[Tensor, "example response position"]:
        """The positions that are generated."""
        return self.present if self.generated is None else self.present & self.generated


@dataclass(frozen=True, slots=True)
class CorruptedStates:
    """States on the way from noise to sequences: drawn once, scored by every model."""

    sequences: Sequences
    times: Float[Tensor, "example draw"]
    states: Int[Tensor, "example response draw position"]


@dataclass(frozen=True, slots=True)
class DiscreteDiffusionAdapter:
    """Sequences in, :class:`~prefero.objectives.TokenLogps` out.

    A token is a time that was drawn, summed over the positions (``tokens="time"``), or a position at such a
    time (``"position"``). Either way all is divided by the number of draws and not by that of positions, so
    that the sum over a response's tokens estimates the paper's integral over time. ``scale`` is a factor on
    everything. ``timed`` says that the model takes times as its argument ``time``.
    """

    noise: Noise
    schedule: Schedule = LINEAR
    tokens: Literal["time", "position"] = "time"
    scale: float = 1.0
    timed: bool = False

    def draw(
        self,
        sequences: Sequences,
        generator: torch.Generator,
        *,
        draws: int = 1,
        noise_per: Literal["response", "example"] = "response",
    ) -> CorruptedStates:
        """``draws`` times an example, the same for all its responses, and a state of every response at each.

        Several times are spread evenly from a random start, each of them uniform alone. Corruptions are every
        response's own (D2-DPO), or one for all responses of an example (``"example"``).

        Raises:
            PreferoError: for a generated token that is the mask.
        """
        tokens, device = sequences.tokens, generator.device
        examples, responses, positions = tokens.shape
        if isinstance(self.noise, Masking) and bool((sequences.scored & self.noise.moves(tokens)).any()):
            raise PreferoError(
                f"a response has token {self.noise.mask}, which is the mask of the noise; leave it out of "
                "`generated`, or give the model's own mask token"
            )
        spread = torch.arange(draws, device=device) / draws
        times = (torch.rand(examples, 1, generator=generator, device=device) + spread).fmod(1) * LATEST
        sources = responses if noise_per == "response" else 1
        shape = (examples, sources, draws, positions)
        chance = torch.rand(shape, generator=generator, device=device)
        kept = chance < self.schedule.kept(times)[:, None, :, None]
        instead = self.noise.like(torch.zeros(shape, dtype=tokens.dtype, device=device), generator)
        gone = ~kept.to(tokens.device) & sequences.scored[:, :, None]
        states = torch.where(gone, instead.to(tokens.device), tokens[:, :, None])
        return CorruptedStates(sequences, times.to(tokens.device), states)

    def score(self, model: Callable[..., Any], corrupted: CorruptedStates) -> TokenLogps:
        """What a model gives the sequences, in one call of it; gradients follow the caller's grad mode.

        The model is a masked language model of transformers, or anything that is called like one.

        Raises:
            PreferoError: what it gives are no logits for every position.
        """
        sequences, states = corrupted.sequences, corrupted.states
        draws = states.shape[2]
        there = sequences.scored.any(-1)
        rows = there[:, :, None].expand(states.shape[:3])
        tokens, scored, present = (
            of[:, :, None].expand(states.shape)[rows]
            for of in (sequences.tokens, sequences.scored, sequences.present)
        )
        times = corrupted.times[:, None].expand(rows.shape)[rows]
        conditions = dict(rows_of(sequences.conditions, rows.nonzero()[:, 0]))
        if self.timed:
            conditions["time"] = times
        logps = self.noise.logps(logits(model, states[rows], present, conditions))
        strength = self.scale * self.schedule.rate(times.to(logps)) / draws
        explained = strength[:, None] * self.noise.explained(logps, tokens, states[rows])
        explained = torch.where(scored, explained, 0)
        if self.tokens == "time":
            return TokenLogps(_placed(explained.sum(-1), rows), rows)
        mask = sequences.scored[:, :, None].expand(states.shape)
        return TokenLogps(_placed(explained, rows).flatten(2), mask.flatten(2))


def _placed(values: Float[Tensor, "row *rest"], rows: Bool[Tensor, "example response draw"]) -> Tensor:
    spread = values.new_zeros(*rows.shape, *values.shape[1:])
    return spread.masked_scatter(rows[(...,) + (None,) * (values.dim() - 1)].expand_as(spread), values)


def logits(
    model: Callable[..., Any],
    states: Int[Tensor, "row position"],
    present: Bool[Tensor, "row position"],
    conditions: Mapping[str, Any],
) -> Float[Tensor, "row position vocabulary"]:
    """What a model says of states, in one call, in float32 at least.

    Raises:
        PreferoError: it is not one row of logits for every position.
    """
    output = model(input_ids=states, attention_mask=present.long(), **conditions)
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if found is None or found.shape[:-1] != states.shape:
        shape = "no logits" if found is None else f"logits of shape {tuple(found.shape)}"
        raise PreferoError(
            f"{type(model).__name__} gives {shape} for {tuple(states.shape)} tokens; a denoiser of sequences "
            "gives a row for every position, as transformers' models for masked language modelling do"
        )
    return wide(found)


class TimedMaskedLM(nn.Module):
    """A masked language model of transformers that is told the time, as a learned shift of its embeddings."""

    def __init__(self, model: PreTrainedModel, frequencies: int = 8) -> None:
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.frequencies = nn.Buffer(math.pi * torch.arange(1, frequencies + 1))
        self.shift = nn.Sequential(nn.Linear(2 * frequencies, width), nn.GELU(), nn.Linear(width, width))

    def forward(
        self, input_ids: Int[Tensor, "row position"], attention_mask: Tensor, time: Float[Tensor, " row"]
    ) -> Float[Tensor, "row position vocabulary"]:
        phases = time[:, None].to(self.frequencies) * self.frequencies
        shift = self.shift(torch.cat((phases.sin(), phases.cos()), -1))
        embedded = self.model.get_input_embeddings()(input_ids) + shift[:, None]
        return self.model(inputs_embeds=embedded, attention_mask=attention_mask).logits


@torch.no_grad()
def sample(
    model: Callable[..., Any],
    adapter: DiscreteDiffusionAdapter,
    given: Int[Tensor, "row position"],
    generator: torch.Generator,
    *,
    steps: int,
    generated: Bool[Tensor, "row position"] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Int[Tensor, "row position"]:
    """Sequences from a model: from noise to data in ``steps`` equal steps of time.

    In each, a position jumps with the probability that the schedule gives, positions independently of each
    other: exact in the limit of many steps (tau-leaping). ``given`` shows the shape, and the tokens where
    ``generated`` is False (all are generated, if None).
    """
    noise, schedule = adapter.noise, adapter.schedule
    made = torch.ones_like(given, dtype=torch.bool) if generated is None else generated
    states = torch.where(made, noise.like(given, generator), given)
    for step in range(steps):
        now, then = (torch.tensor(at / steps, device=given.device) for at in (step, step + 1))
        told = {**(conditions or {}), **({"time": now.expand(len(given))} if adapter.timed else {})}
        probabilities = noise.logps(logits(model, states, torch.ones_like(made), told)).exp()
        tokens = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator).view_as(states)
        share = (schedule.kept(then) - schedule.kept(now)) / (1 - schedule.kept(now))
        if step + 1 == steps:
            share = torch.ones_like(share)
        jumps = torch.rand(states.shape, generator=generator, device=given.device) < share
        states = torch.where(jumps & made & noise.moves(states), tokens, states)
    return states


@torch.no_grad()
def unmask(
    model: Callable[..., Any],
    noise: Masking,
    given: Int[Tensor, "row position"],
    generator: torch.Generator,
    *,
    generated: Bool[Tensor, "row position"] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Int[Tensor, "row position"]:
    """Sequences from a model under masking noise, exactly: one position after another, in random order.

    No two positions of the chain jump at once, and a model that is not told the time does not care when they
    do, so this is what :func:`sample` comes to with infinitely many steps, whatever the schedule.
    """
    made = torch.ones_like(given, dtype=torch.bool) if generated is None else generated
    states = torch.where(made, noise.like(given, generator), given)
    turn = torch.where(made, torch.rand(given.shape, generator=generator, device=given.device), 2)
    order = turn.argsort(-1)
    for step in range(int(made.sum(-1).max())):
        place = order[:, step, None]
        found = logits(model, states, torch.ones_like(made), conditions or {})
        at_place = found.gather(1, place[..., None].expand(-1, -1, found.shape[-1]))[:, 0]
        token = torch.multinomial(noise.logps(at_place).exp(), 1, generator=generator)
        states = states.scatter(1, place, torch.where(made.gather(1, place), token, states.gather(1, place)))
    return states
