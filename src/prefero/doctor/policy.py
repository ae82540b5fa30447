"""The model that is to be aligned, and what it makes of some of the data before it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from prefero.data.examples import Examples, Text
from prefero.data.packing import unique_tokens
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import Cell, TokenExample
from prefero.doctor.displacement import Ches, ches_of
from prefero.errors import PreferoError
from prefero.evaluate.ranking import PairLogps, pair_logps
from prefero.generate.sampling import sample
from prefero.models.kind import Reading
from prefero.models.loading import ModelSource, kind_of
from prefero.models.text import TextKind, context_length, length_limit, sample_tokens
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run

TOKENIZED = 10_000
"""Rows that are tokenised, at most."""

PROMPTS = 32
"""Prompts that the model answers itself."""

TIMED = 3
"""How often a step is timed, after one that is not."""

KINDS = ("language", "encoder_decoder")


@dataclass(frozen=True, slots=True)
class OnPolicy:
    """Mean log-probabilities per token, in nats, of the model's own samples and of the data's responses to
    the same prompts, all cut at the same length; one number a prompt."""

    own: NDArray[np.float64]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    longest: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a training step and of scoring alone, per token that goes through the model; each timed
    several times."""

    step: tuple[float, ...]
    scoring: tuple[float, ...]
    tokens: int
    device: str


@dataclass
class Policy:
    """``rows`` pairs are scored. ``max_length`` is in tokens; None for what training would take.

    :meth:`read` comes before everything that is measured.
    """

    kind: TextKind
    given: nn.Module | None
    rows: int
    max_length: int | None
    seed: int
    data: TokenDataset | None = field(default=None, init=False)
    places: Sequence[int] = field(default=(), init=False)
    prompts: Sequence[Text] = field(default=(), init=False)
    layout: str = field(default="", init=False)

    @classmethod
    def of(
        cls,
        model: str | ModelSource | nn.Module,
        processor: Any = None,
        *,
        rows: int = 256,
        max_length: int | None = None,
        seed: int = 0,
    ) -> Policy:
        """Reads the configuration and the tokenizer, not yet the weights.

        Raises :class:`PreferoError` for a model that cannot be had, or does not read and write text alone,
        and for a ``max_length`` that it does not have.
        """
        source = ModelSource(model) if isinstance(model, str) else model
        kind = kind_of("auto", source, processor)
        if kind.name not in KINDS or not isinstance(kind, TextKind):
            raise PreferoError(
                f"{kind.model_name} is a model of the kind {kind.name}; data are looked at with models that "
                f"read and write text ({', '.join(KINDS)}). Inspect them without a model."
            )
        if rows < 2:
            raise PreferoError(f"rows is {rows}; at least 2 pairs have to be scored.")
        length_limit(max_length, kind.config)
        return cls(kind, source if isinstance(source, nn.Module) else None, rows, max_length, seed)

    @property
    def limit(self) -> int:
        """Tokens that prompt and response may have."""
        return length_limit(self.max_length, self.kind.config)

    @property
    def context(self) -> int | None:
        """How many positions the model has, where it says so."""
        return context_length(self.kind.config)

    def read(self, examples: Examples, places: Sequence[int]) -> None:
        """Tokenise these examples, as DPO would read them. ``places`` are shuffled: the first are scored."""
        needs = dry_run(from_config("dpo"))
        reading = Reading("train", self.max_length, self.seed, "dpo")
        some = replace(examples, items=[examples[place] for place in places])
        self.data, self.places = self.kind.read(some, needs, reading), places
        self.prompts = [example.prompt for example in some]

    @property
    def tokens(self) -> TokenDataset:
        assert self.data is not None
        return self.data

    @cached_property
    def model(self) -> nn.Module:
        """The model, on a GPU if there is one, ready to be scored."""
        loaded = self.kind.load() if self.given is None else self.given
        if self.given is None and torch.cuda.is_available():
            loaded = loaded.to("cuda")
        self.layout = self.kind.adapt(loaded, "auto")
        return loaded

    @property
    def scored(self) -> list[int]:
        """The positions in :attr:`tokens` of the pairs that are scored."""
        return list(range(min(self.rows, len(self.tokens))))

    @property
    def pairs(self) -> list[tuple[Cell, Cell]]:
        return [(cells[0], cells[1]) for cells in (self.tokens[i].cells for i in self.scored)]

    @cached_property
    def logps(self) -> PairLogps:
        return pair_logps(self.model, self.pairs)

    @cached_property
    def ches(self) -> Ches:
        return ches_of(self.model, self.pairs)

    @cached_property
    def on_policy(self) -> OnPolicy | None:
        """None for encoder–decoders, whose samples do not say how likely they were, and where no prompt
        leaves room for a response."""
        if self.kind.name != "language":
            return None
        longest = sample_tokens(self.limit)
        asked = [i for i in self.scored if self._has_room(self.tokens[i], longest)][:PROMPTS]
        if len(asked) < 2:
            return None
        generator = torch.Generator(next(self.model.parameters()).device).manual_seed(self.seed)
        drawn = sample(
            self.model,
            self.kind.tokenizer,
            [self.prompts[i] for i in asked],
            generator=generator,
            max_new_tokens=longest,
        )
        cut = [[Cell(c.context, c.response[:longest]) for c in self.tokens[i].cells] for i in asked]
        data = pair_logps(self.model, [(chosen, rejected) for chosen, rejected in cut])
        return OnPolicy(
            np.asarray([float(np.mean(one.logps)) for one in drawn]),
            (data.chosen / data.chosen_length).numpy(),
            (data.rejected / data.rejected_length).numpy(),
            longest,
        )

    def _has_room(self, example: TokenExample, longest: int) -> bool:
        """Whether the model can be asked the same and answer."""
        contexts = [cell.context for cell in example.cells]
        same = all(len(one) == len(contexts[0]) for one in contexts)
        return same and not example.truncated and len(contexts[0]) + longest <= self.limit

    @cached_property
    def pace(self) -> Pace:
        """A step of DPO's policy (forward and backward) and a pass of the reference, on a few pairs."""
        device = next(self.model.parameters()).device
        budget = min(1024, self.kind.budget(self.layout, device))
        chosen: list[TokenExample] = []
        tokens = 0
        for i in self.scored:
            size = unique_tokens(self.tokens[i])
            if chosen and tokens + size > budget:
                break
            chosen.append(self.tokens[i])
            tokens += size
        rows = self.kind.collate(chosen, [0] * len(chosen))
        rows = rows.to(device)

        def timed(train: bool) -> tuple[float, ...]:
            seconds = [self._once(rows, train) for _ in range(TIMED + 1)][1:]
            return tuple(one / tokens for one in seconds)

        return Pace(timed(True), timed(False), tokens, device.type)

    def _once(self, rows: Any, train: bool) -> float:
        began = time.perf_counter()
        with torch.set_grad_enabled(train):
            logps = self.kind.score(self.model, rows)[""].logps
            if train:
                weights = [one for one in self.model.parameters() if one.requires_grad]
                torch.autograd.grad(logps.sum(), weights, allow_unused=True)
        if logps.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def seconds(self, tokens: float) -> tuple[float, float]:
        """Of an epoch's steps over so many tokens, and of scoring them once for the reference."""
        return tokens * statistics.median(self.pace.step), tokens * statistics.median(self.pace.scoring)
