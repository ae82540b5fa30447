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
with the rates q that the data give. Minus the same of the reference, it is the term D(x_t | x₁) of D2-DPO
(Borso et al., 2025, arXiv 2503.08295), whose loss is thereby plain DPO; its expectation over t and x_t is a
difference of likelihood bounds. Times and states are drawn once for all models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from prefero.data.packing import OnDevice, by_view
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.diffusion.scoring import rows_of
from prefero.models.discrete_diffusion.noise import LINEAR, Noise, Schedule
from prefero.models.head import wide
from prefero.objectives.batch import TokenLogps

LATEST = 1 - 1e-3
"""Times end here: the rates grow without bound towards t = 1, and saturate what compares them."""


@dataclass(frozen=True, slots=True)
class Sequences(OnDevice):
    """Candidates as tokens, padded where they are shorter or fewer than others.

    ``generated`` are the positions that the chain makes, the others of ``there`` are given (a prompt); None
    is all. ``conditions`` are the model's other arguments, the same for all responses of an example, tensors
    with an example axis in front.
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
class CorruptedStates(OnDevice):
    """States on the way from noise to sequences: drawn once, scored by every model."""

    sequences: Sequences
    times: Float[Tensor, "example draw"]
    states: Int[Tensor, "example response draw position"]


@dataclass(frozen=True, slots=True)
class DiscreteDiffusionAdapter:
    """Sequences in, :class:`~prefero.objectives.TokenLogps` out.

    A token is a time that was drawn, summed over the positions (``tokens="time"``), or a position, summed
    over the times (``"position"``). Either way all is divided by the number of draws, so that the sum over a
    response's tokens estimates the paper's integral over time. ``scale`` is a factor on everything. ``timed``
    says that the model takes times as its argument ``time``.
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
        response's own (D2-DPO), or one for all responses of an example (``"example"``). Raises
        :class:`PreferoError` for a generated token that is the mask, or none of the noise's.
        """
        tokens, device = sequences.tokens, generator.device
        examples, responses, positions = tokens.shape
        impossible = sequences.scored & ~self.noise.makes(tokens)
        if bool(impossible.any()):
            token = int(tokens[impossible][0])
            raise PreferoError(
                f"a response has token {token}, which no way from the noise leads to: it is the mask, or "
                "none of the tokens; leave it out of `generated`, or name another mask"
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
        """Score the sequences in one call of a model: a masked language model of transformers, or what is
        called like one (:class:`~prefero.models.discrete_diffusion.timed.TimedForMaskedLM` is told the time).
        Raises :class:`PreferoError` for other output than logits for every position. Gradients follow the
        caller's grad mode."""
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
        counts = scored & self.noise.moves(states[rows])
        logps = self.noise.logps(wide(logits(model, states[rows], present, conditions)[counts]))
        explained = self.noise.explained(logps, tokens[counts], states[rows][counts])
        each = _placed(explained, counts)
        each = self.scale * self.schedule.rate(times.to(logps))[:, None] / draws * each
        if self.tokens == "time":
            return TokenLogps(_placed(each.sum(-1), rows), rows)
        return TokenLogps(_placed(each, rows).sum(2), sequences.scored)


def _placed(values: Float[Tensor, "row *rest"], rows: Bool[Tensor, "*where"]) -> Tensor:
    """The values of the places that are marked, 0 elsewhere."""
    spread = values.new_zeros(*rows.shape, *values.shape[1:])
    return spread.masked_scatter(rows[(...,) + (None,) * (values.dim() - 1)].expand_as(spread), values)


def logits(
    model: Callable[..., Any],
    states: Int[Tensor, "row position"],
    present: Bool[Tensor, "row position"],
    conditions: Mapping[str, Any],
) -> Float[Tensor, "row position vocabulary"]:
    """The logits that a model gives states, in one call; raises :class:`PreferoError` for no row for every
    position."""
    output = model(input_ids=states, attention_mask=present.long(), **conditions)
    given = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if given is None or given.shape[:-1] != states.shape:
        shape = "no logits" if given is None else f"logits of shape {tuple(given.shape)}"
        raise PreferoError(
            f"{type(model).__name__} gives {shape} for {tuple(states.shape)} tokens; a denoiser of sequences "
            "gives a row for every position, as transformers' models for masked language modelling do"
        )
    return given


@dataclass(frozen=True, slots=True)
class Drawing:
    """The way to draw an example's states; ``settings`` are all of the kind's, for fingerprints."""

    adapter: DiscreteDiffusionAdapter
    draws: int
    noise_per: Literal["response", "example"]
    settings: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SequenceExample(TokenExample):
    """An example of sequences: its tokens are those of the text, or times."""

    drawing: Drawing

    @property
    def lengths(self) -> tuple[int, ...]:
        if self.drawing.adapter.tokens == "time":
            return (self.drawing.draws,) * len(self.cells)
        return tuple(len(cell.response) for cell in self.cells)

    def fingerprint(self) -> bytes:
        inner = TokenExample.fingerprint(self)
        return hashlib.sha256(inner + self.drawing.settings.encode()).digest()


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a view on the response axis of a micro-batch, and the tokens of its longest response."""

    first: int
    last: int
    longest: int


@dataclass(frozen=True, slots=True)
class CorruptedBatch(OnDevice):
    """Examples whose responses, and those of their views, stand side by side on the response axis. ``starts``
    are the lengths of contexts. Its length is how many tokens go through the network."""

    corrupted: CorruptedStates
    starts: Int[Tensor, "example response"]
    places: Mapping[str, Place]

    def __len__(self) -> int:
        _, _, draws, positions = self.corrupted.states.shape
        return int(self.corrupted.sequences.scored.any(-1).sum()) * draws * positions

    def by_view(self, scored: TokenLogps, tokens: Literal["time", "position"]) -> dict[str, TokenLogps]:
        """The numbers by view; positions are counted from where the response begins."""
        return {
            view: TokenLogps(self._part(scored.logps, place, tokens), self._part(scored.mask, place, tokens))
            for view, place in self.places.items()
        }

    def masks(self, tokens: Literal["time", "position"]) -> dict[str, Bool[Tensor, "example response token"]]:
        """The places for which :meth:`by_view` gives numbers."""
        scored = self.corrupted.sequences.scored
        if tokens == "time":
            scored = scored.any(-1, keepdim=True).expand(*scored.shape[:2], self.corrupted.times.shape[1])
        return {view: self._part(scored, place, tokens) for view, place in self.places.items()}

    def _part(self, values: Tensor, place: Place, tokens: Literal["time", "position"]) -> Tensor:
        values = values[:, place.first : place.last]
        if tokens == "time":
            return values
        at = self.starts[:, place.first : place.last, None]
        at = at + torch.arange(place.longest, device=values.device)
        inside = at < values.shape[-1]
        responses = values.gather(-1, at.clamp(max=values.shape[-1] - 1))
        return torch.where(inside, responses, torch.zeros_like(responses))


def corrupted_batch(items: Sequence[SequenceExample], seeds: Sequence[int]) -> CorruptedBatch:
    """One micro-batch. An example's times and states depend on its seed alone."""
    drawing = items[0].drawing
    views = by_view(items)
    counts = [max(map(len, cells)) for cells in views.values()]
    ends = list(accumulate(counts))
    places = {
        view: Place(end - count, end, max(len(cell.response) for some in cells for cell in some))
        for (view, cells), count, end in zip(views.items(), counts, ends, strict=True)
    }
    positions = max(len(cell.context) + len(cell.response) for item in items for cell in item.all_cells)
    shape = (len(items), ends[-1])
    tokens = np.zeros((*shape, positions), np.int64)
    there, generated = np.zeros(tokens.shape, np.bool_), np.zeros(tokens.shape, np.bool_)
    states = np.zeros((*shape, drawing.draws, positions), np.int64)
    starts, times = np.zeros(shape, np.int64), []
    for example, (item, seed) in enumerate(zip(items, seeds, strict=True)):
        drawn_times, drawn = _drawn(item, seed)
        times.append(drawn_times)
        for view, place in places.items():
            for response, (cell, state) in enumerate(zip(views[view][example], drawn[view], strict=True)):
                at = (example, place.first + response)
                start, end = len(cell.context), len(cell.context) + len(cell.response)
                starts[at] = start
                tokens[at][:start], tokens[at][start:end] = cell.context, cell.response
                there[at][:end], generated[at][start:end] = True, _scored(cell)
                states[at][:, :start], states[at][:, start:end] = cell.context, state
    given = Sequences(torch.from_numpy(tokens), torch.from_numpy(generated), torch.from_numpy(there))
    corrupted = CorruptedStates(given, torch.stack(times), torch.from_numpy(states))
    return CorruptedBatch(corrupted, torch.from_numpy(starts), places)


def _drawn(
    item: SequenceExample, seed: int
) -> tuple[Float[Tensor, " draw"], dict[str, list[NDArray[np.int64]]]]:
    """An example's times, and the states ``[draw token]`` of the responses of each view, the same where
    shared."""
    distinct = list(item.cells)
    which: dict[str, list[int]] = {"": list(range(len(distinct)))}
    for view, cells in item.views.items():
        which[view] = []
        for cell in cells:
            same = [
                place
                for place, other in enumerate(item.cells)
                if place not in which[view] and np.array_equal(cell.response, other.response)
            ]
            which[view].append(same[0] if same else len(distinct))
            distinct += [] if same else [cell]
    lengths = [len(cell.response) for cell in distinct]
    tokens = np.zeros((1, len(distinct), max(lengths)), np.int64)
    generated = np.zeros(tokens.shape, np.bool_)
    for place, cell in enumerate(distinct):
        tokens[0, place, : lengths[place]] = cell.response
        generated[0, place, : lengths[place]] = _scored(cell)
    drawn = item.drawing.adapter.draw(
        Sequences(torch.from_numpy(tokens), torch.from_numpy(generated)),
        torch.Generator().manual_seed(seed),
        draws=item.drawing.draws,
        noise_per=item.drawing.noise_per,
    )
    states = [one[:, :length].numpy() for one, length in zip(drawn.states[0], lengths, strict=True)]
    return drawn.times[0], {view: [states[place] for place in some] for view, some in which.items()}


def _scored(cell: Cell) -> NDArray[np.bool_] | bool:
    return True if cell.scored is None else cell.scored


def sequences(item: TokenExample, drawing: Drawing) -> SequenceExample:
    """The example, with how its states are drawn."""
    return SequenceExample(**{f.name: getattr(item, f.name) for f in fields(TokenExample)}, drawing=drawing)
