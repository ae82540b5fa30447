"""The model to be aligned, measured on some of the data before training.

Of a response, :func:`ches` (Razin et al., 2024, arXiv 2410.08847) reads the states after the last norm, at
the positions that *predict* its tokens: from the last token of the prompt to its own last but one.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn

from prefero.data.chat import Writing
from prefero.data.examples import Examples
from prefero.data.preview import Preview
from prefero.data.tokenize import TokenDataset, TooLong
from prefero.data.trie import Cell, TokenExample, unique_tokens
from prefero.errors import PreferoError
from prefero.evaluate.ranking import PairLogps, pair_logps
from prefero.generate.sampling import sample
from prefero.models.kind import Reading
from prefero.models.loading import ModelSource, kind_of
from prefero.models.scoring import scored_rows
from prefero.models.text import TextKind, context_length, length_limit, sample_tokens
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run
from prefero.objectives.signals import TOKEN_STATE

TOKENIZED = 10_000
"""Pairs that are tokenised, at most."""

PROMPTS = 32
"""Prompts for which the model samples a response."""

TIMED = 3
"""Steps that are timed, after one that is not."""

KINDS = ("language", "encoder_decoder")


@dataclass(frozen=True, slots=True)
class OnPolicy:
    """Mean log-probabilities per token of the model's own samples and of the data's responses, per prompt."""

    own: NDArray[np.float64]
    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    longest: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds per token of a training step and of scoring alone, in several repetitions."""

    step: tuple[float, ...]
    scoring: tuple[float, ...]
    tokens: int
    device: str


@dataclass
class Policy:
    """The model to be aligned, measured on ``rows`` pairs, after :meth:`read`. ``max_length`` is in tokens.
    ``places`` are the positions of the tokenised pairs in the data; ``trained`` are those, of the tokenised
    pairs, that training would not leave out for their length, nor stop at."""

    kind: TextKind
    given: nn.Module | None
    rows: int
    max_length: int | None
    seed: int
    writing: Writing
    too_long: TooLong = "cut_response"
    data: TokenDataset | None = field(default=None, init=False)
    places: Sequence[int] = field(default=(), init=False)
    trained: Sequence[int] = field(default=(), init=False)
    layout: str = field(default="", init=False)

    @classmethod
    def of(
        cls,
        model: str | ModelSource | nn.Module,
        processor: Any = None,
        *,
        rows: int = 256,
        max_length: int | None = None,
        template: str = "auto",
        too_long: TooLong = "cut_response",
        seed: int = 0,
    ) -> Policy:
        """Read configuration and tokenizer, not yet the weights. Raises :class:`PreferoError` for a model
        that does not load or map text to text, and for a ``max_length`` beyond its positions."""
        source = ModelSource(model) if isinstance(model, str) else model
        kind = kind_of("auto", source, processor)
        if kind.name not in KINDS or not isinstance(kind, TextKind):
            raise PreferoError(
                f"{kind.model_name} is a model of the kind {kind.name}; data are inspected with models that "
                f"read and write text ({', '.join(KINDS)}). Inspect them without a model."
            )
        if rows < 2:
            raise PreferoError(f"rows is {rows}; at least 2 pairs have to be scored.")
        length_limit(max_length, kind.config)
        given = source if isinstance(source, nn.Module) else None
        return cls(kind, given, rows, max_length, seed, Writing(template), too_long)

    @property
    def limit(self) -> int:
        """The number of tokens that prompt and response may have."""
        return length_limit(self.max_length, self.kind.config)

    @property
    def context(self) -> int | None:
        """The number of positions of the model, where its configuration says so."""
        return context_length(self.kind.config)

    def read_some(self, examples: Examples, pairs: Sequence[int]) -> None:
        """Tokenise some of the ``pairs``, drawn at random."""
        self.read(examples, random.Random(self.seed).sample(pairs, min(TOKENIZED, len(pairs))))

    def read(self, examples: Examples, places: Sequence[int]) -> None:
        """Tokenise the examples at ``places`` as DPO would, none of them left out for its length, so that
        long ones can be counted. They are shuffled: the first ones are scored."""
        needs = dry_run(from_config("dpo"))
        reading = Reading(
            "train", self.max_length, self.seed, "dpo", "keep_recent_prompt", writing=self.writing
        )
        some = replace(examples, items=[examples[place] for place in places])
        data = self.data = self.kind.read(some, needs, reading)
        assert isinstance(data, TokenDataset)
        by_origin = {examples[place].origin: place for place in places}
        self.places = [by_origin[example.origin] for example in data.source]
        drops = self.too_long in ("drop", "error")
        self.trained = [at for at, tokens in enumerate(data) if not (drops and tokens.truncated)]
        if not self.trained:
            raise PreferoError(
                f"all pairs that were looked at ({len(data):,}) have more than max_length = {self.limit} "
                "tokens: raise --max-length, or choose another --too-long"
            )

    def sample(self, total: int) -> str:
        """The part of so many pairs that is tokenised, in words; empty if it is all of them."""
        count = len(self.places)
        return f"On {count:,} of {total:,} pairs, drawn at random." if count < total else ""

    def preview(self, count: int) -> Preview:
        """The first ``count`` pairs of those that are tokenised, in the order of the data."""
        first = sorted(self.trained, key=self.places.__getitem__)[:count]
        tokens = replace(
            self.tokens,
            examples=tuple(self.tokens[i] for i in first),
            source=replace(self.tokens.source, items=[self.tokens.source[i] for i in first]),
        )
        preview = self.kind.preview(tokens, count)
        assert preview is not None
        return preview

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
        return list(self.trained[: self.rows])

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
        """None for encoder–decoders (no likelihoods of samples), and where no prompt leaves room for a
        response."""
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
            [self.tokens.source[i] for i in asked],
            generator=generator,
            max_new_tokens=longest,
            writing=self.tokens.writing,
        )
        cut = [[Cell(c.context, c.response[:longest]) for c in self.tokens[i].cells] for i in asked]
        data = pair_logps(self.model, [(chosen, rejected) for chosen, rejected in cut])
        return OnPolicy(
            np.asarray([float(np.mean(sample.logps)) for sample in drawn]),
            (data.chosen / data.chosen_length).numpy(),
            (data.rejected / data.rejected_length).numpy(),
            longest,
        )

    def _has_room(self, example: TokenExample, longest: int) -> bool:
        """Whether the model can be given the prompt as it is and answer it."""
        contexts = {len(cell.context) for cell in example.cells}
        return len(contexts) == 1 and not example.truncated and max(contexts) + longest <= self.limit

    @cached_property
    def pace(self) -> Pace:
        """The speed of a step of DPO (forward and backward) and of a pass of the reference, on a few
        pairs."""
        device = next(self.model.parameters()).device
        budget = min(1024, self.kind.budget(self.layout, device))
        chosen: list[TokenExample] = []
        tokens = 0
        for i in self.scored:
            size = unique_tokens(self.tokens[i].all_cells)
            if chosen and tokens + size > budget:
                break
            chosen.append(self.tokens[i])
            tokens += size
        rows = self.kind.collate(chosen, [0] * len(chosen))
        rows = rows.to(device)

        def timed(train: bool) -> tuple[float, ...]:
            seconds = [self._once(rows, train) for _ in range(TIMED + 1)][1:]
            return tuple(each / tokens for each in seconds)

        return Pace(timed(True), timed(False), tokens, device.type)

    def _once(self, rows: Any, train: bool) -> float:
        began = time.perf_counter()
        with torch.set_grad_enabled(train):
            logps = self.kind.score(self.model, rows)[""].logps
            if train:
                weights = [weight for weight in self.model.parameters() if weight.requires_grad]
                torch.autograd.grad(logps.sum(), weights, allow_unused=True)
        if logps.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def seconds(self, tokens: float) -> tuple[float, float]:
        """The seconds of an epoch's steps over so many tokens, and of scoring them once for the reference."""
        return tokens * statistics.median(self.pace.step), tokens * statistics.median(self.pace.scoring)


@dataclass(frozen=True, slots=True)
class Ches:
    """⟨H_w, H_l⟩ − ‖H_w‖² of each pair, with H the sum of a response's states, or ``normalised``, their mean:
    the higher, the more displacement. Filter by ``normalised``: ``score`` grows with the length."""

    score: Float[Tensor, " pair"]
    normalised: Float[Tensor, " pair"]


def ches(
    chosen: Float[Tensor, "pair token hidden"],
    rejected: Float[Tensor, "pair token_ hidden"],
    chosen_mask: Bool[Tensor, "pair token"],
    rejected_mask: Bool[Tensor, "pair token_"],
) -> Ches:
    """CHES from the states that predict each response's tokens, where the masks are true."""
    both = (chosen, chosen_mask), (rejected, rejected_mask)
    totals = [torch.where(mask[..., None], states, 0).double().sum(1) for states, mask in both]
    return of_sums(totals[0], totals[1], chosen_mask.sum(1), rejected_mask.sum(1))


def of_sums(
    chosen: Float[Tensor, "pair hidden"],
    rejected: Float[Tensor, "pair hidden"],
    chosen_length: Tensor,
    rejected_length: Tensor,
) -> Ches:
    """CHES from the sums of the states and their numbers; a response without tokens has the mean 0."""

    def similarity(w: Tensor, other: Tensor) -> Tensor:
        return (w * other).sum(-1) - w.square().sum(-1)

    means = [
        total / length.clamp(min=1)[:, None]
        for total, length in ((chosen, chosen_length), (rejected, rejected_length))
    ]
    return Ches(similarity(chosen, rejected), similarity(*means))


def ches_of(model: nn.Module, pairs: Sequence[tuple[Cell, Cell]], *, tokens_per_row: int = 4096) -> Ches:
    """CHES of (chosen, rejected) pairs under the model from which training starts."""
    if not pairs:
        raise PreferoError("CHES needs at least one pair; got none")
    examples = [TokenExample(pair, {}, i) for i, pair in enumerate(pairs)]
    sums: list[Tensor] = [torch.empty(0)] * len(pairs)
    lengths: list[Tensor] = [torch.empty(0)] * len(pairs)
    rows = scored_rows(model, examples, frozenset({TOKEN_STATE}), tokens_per_row=tokens_per_row)
    for row, scored in rows:
        states = torch.where(scored.mask[..., None], scored.signals[TOKEN_STATE], 0).double().sum(2).cpu()
        for place, i in enumerate(row):
            sums[i], lengths[i] = states[place], scored.mask[place].sum(-1).cpu()
    total, length = torch.stack(sums), torch.stack(lengths)
    return of_sums(total[:, 0], total[:, 1], length[:, 0], length[:, 1])


def least_displacing(scores: Ches, keep: int) -> list[int]:
    """The ``keep`` pairs with the lowest length-normalised score, in their order in the data. The paper keeps
    5 %. Raises :class:`PreferoError` if ``keep`` is not between 1 and the number of pairs."""
    if not 1 <= keep <= len(scores.normalised):
        raise PreferoError(
            f"keep is {keep}; expected a number between 1 and the {len(scores.normalised)} pairs"
        )
    return sorted(scores.normalised.argsort(stable=True)[:keep].tolist())


def displaced_towards(
    unembedding: Float[Tensor, "vocabulary hidden"], chosen: int, rejected: int
) -> Float[Tensor, " vocabulary"]:
    """⟨W_z, W_w − W_l⟩: the change of each token's logit in the first step on a pair of single tokens."""
    return unembedding @ (unembedding[chosen] - unembedding[rejected])
