"""What rows of several examples cost, and how the examples of a step are dealt to rows."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Bool
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from prefero.data.examples import Example
from prefero.errors import PreferoError, nearest
from prefero.models.signals import SecondModel
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, Sizes


class Rows(Protocol):
    """What a row of several examples costs, and how a step is dealt to rows."""

    def cost(self, members: Sequence[int]) -> int:
        """Tokens that go through the network for a row of these examples."""
        ...

    def deal(self, members: Sequence[int], rows: int) -> list[list[int]]:
        """The examples of one step in at most ``rows`` rows, the largest cost as small as can be."""
        ...


class PackedRows:
    """Rows without padding: the cost of a row is the sum of its examples' ``sizes`` (unique tokens)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)

    def cost(self, members: Sequence[int]) -> int:
        return int(self.sizes[list(members)].sum())

    def deal(self, members: Sequence[int], rows: int) -> list[list[int]]:
        """The longest first into the emptiest (Graham's rule: at most 4/3 of the best possible)."""
        emptiest = [(0, row) for row in range(rows)]
        dealt: list[list[int]] = [[] for _ in range(rows)]
        for member in sorted(members, key=lambda member: (-self.sizes[member], member)):
            load, row = emptiest[0]
            dealt[row].append(member)
            heapq.heapreplace(emptiest, (load + int(self.sizes[member]), row))
        return [row for row in dealt if row]


class PaddedRows:
    """Rows in which every response is padded to the longest: responses × longest is the cost of a row."""

    def __init__(self, responses: Sequence[int], longest: Sequence[int]) -> None:
        self.responses = np.asarray(responses, dtype=np.int64)
        self.longest = np.asarray(longest, dtype=np.int64)

    def cost(self, members: Sequence[int]) -> int:
        chosen = list(members)
        return int(self.responses[chosen].sum() * self.longest[chosen].max()) if chosen else 0

    def deal(self, members: Sequence[int], rows: int) -> list[list[int]]:
        """The step sorted by length and cut into neighbours, so that little is padded."""
        ordered = sorted(members, key=lambda member: (-self.longest[member], member))
        low, high = max(self.cost([member]) for member in ordered), self.cost(ordered)
        while low < high:
            middle = (low + high) // 2
            if len(self._cut(ordered, middle)) <= rows:
                high = middle
            else:
                low = middle + 1
        return self._cut(ordered, low)

    def _cut(self, ordered: Sequence[int], budget: int) -> list[list[int]]:
        rows: list[list[int]] = []
        longest = responses = 0
        for member in ordered:
            responses += int(self.responses[member])
            if rows and responses * longest <= budget:
                rows[-1].append(member)
            else:
                rows.append([member])
                longest, responses = int(self.longest[member]), int(self.responses[member])
        return rows


Options = TypeVar("Options", bound=BaseModel)


def parsed(options: type[Options], given: Mapping[str, Any] | None, kind: str) -> Options:
    """What was given, as a model that forbids what it does not know.

    Raises :class:`PreferoError` naming the option.
    """
    for name in given or {}:
        if name not in options.model_fields:
            known = ", ".join(options.model_fields)
            raise PreferoError(
                f"model.options has no {name!r} for a model of kind {kind}"
                f"{nearest(name, options.model_fields)}. Its options: {known}."
            )
    try:
        return options(**(given or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PreferoError(f"model.options.{where} of kind {kind}: {first['msg']}") from None


def no_options(kind: str, given: Mapping[str, Any] | None) -> None:
    """For kinds that have none."""
    if given:
        raise PreferoError(
            f"a model of kind {kind} has no options, but model.options gives {', '.join(given)}"
        )


Layout = Literal["auto", "trees", "dense", "flex", "padded"]


class Item(Protocol):
    """An example as a kind of model has it in memory."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Annotations, on the axes of :data:`prefero.data.schema.SCHEMA`: a scalar, an array over responses,
        or a tuple of arrays over tokens."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """How many tokens each response has."""
        ...

    def fingerprint(self) -> bytes:
        """A hash of all that is scored and all annotations."""
        ...


class Summary(Protocol):
    """What there is to say of a data set: ``notes`` for the reader, and everything as JSON holds it."""

    @property
    def notes(self) -> Sequence[str]: ...

    def as_dict(self) -> dict[str, Any]: ...


class Dataset(Protocol):
    """Items in their order; ``roles`` names the response axis, ``()`` for candidates."""

    @property
    def roles(self) -> tuple[str, ...]: ...

    @property
    def summary(self) -> Summary: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Inputs(Protocol):
    """A row of items, collated; its length is its cost, in the unit in which rows are budgeted."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How data are read. ``max_length`` is in tokens, None for the kind's own choice; ``method`` is for
    messages."""

    split: str = "train"
    max_length: int | None = None
    seed: int = 0
    method: str = ""


class Kind(ABC):
    """One kind of model, for one run: made of a model or of where it is to be loaded from, by :meth:`of`.

    ``processor`` is what belongs to the model and is saved beside it: a tokenizer, a processor, a scheduler.
    """

    name: ClassVar[str]
    task_type: ClassVar[str | None] = None
    """What PEFT calls it."""
    lora_targets: ClassVar[str | tuple[str, ...]] = "all-linear"
    """The layers that low-rank adapters go to by default."""
    redrawn: ClassVar[str] = ""
    """Why what is scored cannot be looked up in a disk cache, for kinds that draw it anew."""
    monitors: ClassVar[frozenset[str]] = frozenset()
    """The signals of tokens that it gives besides log-probabilities, although no objective needs them."""

    processor: Any
    model_name: str

    @classmethod
    @abstractmethod
    def of(cls, model: Any, processor: Any = None, options: Mapping[str, Any] | None = None) -> Self:
        """For a loaded model, or a :class:`~prefero.models.loading.ModelSource` that is loaded later.

        Raises :class:`~prefero.errors.PreferoError` for a model of another kind, a processor that is not
        there, and options that the kind does not have.
        """

    # Data

    @abstractmethod
    def read(self, source: Any, needs: Needs, reading: Reading) -> Dataset:
        """Preference data in any form that is known, as an objective reads them.

        ``source`` is a path, a hub name, a ``datasets.Dataset``, rows,
        :class:`~prefero.data.examples.Examples`, or what this returned before. Raises
        :class:`~prefero.errors.PreferoError`, with the row, for what is not as it should be.
        """

    @abstractmethod
    def rows(self, data: Any, layout: str) -> Rows:
        """What rows of these items cost."""

    @abstractmethod
    def budget(self, layout: str, device: torch.device) -> int:
        """What a row may cost, by default."""

    @abstractmethod
    def collate(self, items: Sequence[Any], seeds: Sequence[int]) -> Inputs:
        """One row. What is drawn for an item (times, noise) depends on its seed alone, so it is the same
        whichever row it is in, and all models are scored on it."""

    # Models

    @abstractmethod
    def load(self) -> nn.Module:
        """The model that this kind was made of the source of."""

    @abstractmethod
    def other(self, name: str, dtype: torch.dtype) -> nn.Module:
        """Another model of the same kind, ready to score."""

    @abstractmethod
    def adapt(self, model: nn.Module, layout: Layout = "auto", *, keep_dropout: bool = False) -> str:
        """Make the model score rows; returns the layout that it will use."""

    @abstractmethod
    def score(
        self,
        model: nn.Module,
        inputs: Any,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        """What a model gives the views of a row (``""``: the items themselves), in one call of the possibly
        wrapped model. Gradients follow the caller's grad mode; the ``others``, which signals compare with,
        never have one."""

    @abstractmethod
    def masks(self, inputs: Any) -> Mapping[str, Bool[Tensor, "example response token"]]:
        """Where :meth:`score` will give numbers, by view; no model runs for it."""

    @abstractmethod
    def check(self, needs: Needs) -> None:
        """Raise :class:`~prefero.errors.PreferoError` for what this kind of model cannot give an
        objective: signals, views."""

    def state_sizes(self, model: nn.Module | SecondModel) -> Sizes:
        """How long the axes are that a model's states have behind their places."""
        return {"hidden": 1, "layer": 1}

    def leaves_out(self, model: nn.Module) -> bool:
        """Whether a step can pass by some of the weights that are trained."""
        return False

    def save_beside(self, model: nn.Module, folder: Path) -> None:
        """Write what other libraries read in the place of what ``save_pretrained`` wrote there, if they read
        something else."""
        return None

    # Samples, for the report

    def prompts(self, examples: Sequence[Example], count: int, max_length: int | None) -> list[Any]:
        """The first distinct prompts that can be answered; none, for a kind that draws no samples."""
        return []

    def sample(
        self, model: nn.Module, prompts: Sequence[Any], seed: int, max_length: int | None
    ) -> list[Any]:
        """A response to each of the prompts, the same noise for the same seed: text, or a mapping with
        ``image``, an address that a browser shows."""
        return []
