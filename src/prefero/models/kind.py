"""The protocol of a kind of model: all that a trainer asks of one, and the types that go back and forth.

In the order of the datum: a :class:`Kind` reads preference data into a :class:`Dataset` of :class:`Item`; its
:class:`Batching` says what a micro-batch of items costs and deals a step to micro-batches; it collates one
into :class:`Inputs`; and it scores these with a model.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import torch
from jaxtyping import Bool
from PIL import Image
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from prefero.data.chat import Writing
from prefero.data.examples import Example, Text
from prefero.data.pictures import Picture
from prefero.data.preview import Preview
from prefero.data.tokenize import TooLong
from prefero.errors import PreferoError, nearest
from prefero.models.signals import SecondModel
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, Sizes
from prefero.objectives.signals import STATES, States

Packing = Literal["trees", "dense", "flex", "padded"]
"""How examples share a micro-batch: as token trees (by one of three kernels), or in padded rows."""

PackingChoice = Packing | Literal["auto"]
"""The values of ``training.layout``; ``auto`` is the fastest packing that gives right numbers."""


# Data


class Item(Protocol):
    """An example as a kind of model has it in memory."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Annotations on the axes of :data:`prefero.data.schema.SCHEMA`."""

    @property
    def lengths(self) -> Sequence[int]:
        """How many tokens each response has."""

    def fingerprint(self) -> bytes:
        """A hash of all that is scored and all annotations."""


class Summary(Protocol):
    """A description of a data set: ``notes`` for the reader, and everything as JSON holds it."""

    @property
    def notes(self) -> Sequence[str]: ...

    def as_dict(self) -> dict[str, Any]: ...


AnyItem = TypeVar("AnyItem", bound=Item)
ItemOut = TypeVar("ItemOut", bound=Item, covariant=True)


class Dataset(Protocol[ItemOut]):
    """Items in their order; ``roles`` names the response axis, ``()`` for candidates."""

    @property
    def roles(self) -> tuple[str, ...]: ...

    @property
    def summary(self) -> Summary: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> ItemOut: ...

    def __iter__(self) -> Iterator[ItemOut]: ...


class Inputs(Protocol):
    """The input of a model for a micro-batch; its length is its cost, in the unit of the token budget."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self: ...


AnyInputs = TypeVar("AnyInputs", bound=Inputs)


@dataclass(frozen=True, slots=True)
class Reading:
    """How data are read. ``max_length`` is in tokens, None for the kind's own; ``too_long`` and ``writing``
    are as :func:`~prefero.data.tokenize.tokenize` takes them; ``method`` is for messages."""

    split: str = "train"
    max_length: int | None = None
    seed: int = 0
    method: str = ""
    too_long: TooLong = "cut_response"
    writing: Writing = field(default_factory=Writing)


# Micro-batches


class Batching(Protocol):
    """The cost of a micro-batch of some examples, and the dealing of a step to micro-batches."""

    def cost(self, members: Sequence[int]) -> int:
        """Tokens that go through the network for a micro-batch of these examples."""

    def deal(self, members: Sequence[int], count: int) -> list[list[int]]:
        """The examples of one step in at most ``count`` micro-batches, the largest cost the least."""

    def most(self, count: int) -> int:
        """No micro-batch of ``count`` examples costs more."""


@dataclass(frozen=True)
class PackedBatching:
    """Micro-batches without padding: one costs the sum of its examples' ``sizes`` (unique tokens)."""

    sizes: Sequence[int]

    def cost(self, members: Sequence[int]) -> int:
        return sum(self.sizes[member] for member in members)

    def deal(self, members: Sequence[int], count: int) -> list[list[int]]:
        """The longest first into the emptiest (Graham's rule: at most 4/3 of the best possible)."""
        emptiest = [(0, place) for place in range(count)]
        dealt: list[list[int]] = [[] for _ in range(count)]
        for member in sorted(members, key=lambda member: (-self.sizes[member], member)):
            load, place = emptiest[0]
            dealt[place].append(member)
            heapq.heapreplace(emptiest, (load + self.sizes[member], place))
        return [batch for batch in dealt if batch]

    def most(self, count: int) -> int:
        return sum(heapq.nlargest(count, self.sizes))


@dataclass(frozen=True)
class PaddedBatching:
    """Micro-batches whose responses are all padded to the longest: one costs ``responses`` × ``longest``."""

    responses: Sequence[int]
    longest: Sequence[int]

    def cost(self, members: Sequence[int]) -> int:
        responses = sum(self.responses[member] for member in members)
        return responses * max((self.longest[member] for member in members), default=0)

    def deal(self, members: Sequence[int], count: int) -> list[list[int]]:
        """The step sorted by length and cut into neighbours, so that little is padded."""
        ordered = sorted(members, key=lambda member: (-self.longest[member], member))
        low, high = max(self.cost([member]) for member in ordered), self.cost(ordered)
        while low < high:
            middle = (low + high) // 2
            if len(self._cut(ordered, middle)) <= count:
                high = middle
            else:
                low = middle + 1
        return self._cut(ordered, low)

    def most(self, count: int) -> int:
        return sum(heapq.nlargest(count, self.responses)) * max(self.longest, default=0)

    def _cut(self, ordered: Sequence[int], budget: int) -> list[list[int]]:
        batches: list[list[int]] = []
        longest = responses = 0
        for member in ordered:
            responses += self.responses[member]
            if batches and responses * longest <= budget:
                batches[-1].append(member)
            else:
                batches.append([member])
                longest, responses = self.longest[member], self.responses[member]
        return batches


# Responses


class Answer(Protocol):
    """A response that a model drew: its ``content`` is what a judge reads, a text or an image."""

    @property
    def content(self) -> str | Image.Image: ...


@dataclass(frozen=True, slots=True, eq=False)
class PlainAnswer:
    """A response of which nothing but its content is known."""

    content: str | Image.Image


# Kinds


Options = TypeVar("Options", bound=BaseModel)


def parsed(options: type[Options], given: Mapping[str, Any] | None, kind: str) -> Options:
    """The given options as a model that forbids unknown ones; raises :class:`PreferoError` naming the
    option."""
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
    """Raise :class:`PreferoError` for options of a kind that has none."""
    if given:
        raise PreferoError(
            f"a model of kind {kind} has no options, but model.options gives {', '.join(given)}"
        )


class Kind(ABC, Generic[AnyItem, AnyInputs]):
    """One kind of model, for one run: made of a model or of where it is to be loaded from, by :meth:`of`.

    ``AnyItem`` is what it reads examples into and ``AnyInputs`` what it collates. ``processor`` is what
    belongs to the model and is saved beside it: a tokenizer, a processor, a scheduler.
    """

    name: ClassVar[str]
    loader: str = ""
    """The class of transformers that loads it; empty for models of other libraries."""
    what: ClassVar[str] = ""
    """Its name in messages."""
    processor_loader: ClassVar[str] = ""
    """The class of transformers that loads its tokenizer or processor."""
    task_type: ClassVar[str | None] = None
    """PEFT's name for it."""
    lora_targets: ClassVar[str | tuple[str, ...]] = "all-linear"
    """The layers that low-rank adapters go to by default."""
    redrawn: ClassVar[str] = ""
    """Why its scores cannot be looked up in a disk cache, which knows the cells of
    :class:`~prefero.data.trie.TokenExample`, for kinds that draw what is scored again."""
    monitors: ClassVar[frozenset[str]] = frozenset()
    """The signals of tokens that it gives besides log-probabilities, although no objective needs them."""
    sample_options: ClassVar[frozenset[str]] = frozenset()
    """The settings of a sample that it takes: ``max_new_tokens``, ``temperature``."""
    samples_are_text: ClassVar[bool] = True
    states: frozenset[States] = frozenset()
    """The states in which it scores responses, for kinds that ask a denoiser."""

    processor: Any
    model_name: str

    @classmethod
    @abstractmethod
    def of(cls, model: Any, processor: Any = None, options: Mapping[str, Any] | None = None) -> Self:
        """For a loaded model, or a :class:`~prefero.models.loading.ModelSource` that is loaded later.

        Raises :class:`~prefero.errors.PreferoError` for a model of another kind, a processor that is missing,
        and options that the kind does not have.
        """

    # Data

    @abstractmethod
    def read(self, source: Any, needs: Needs, reading: Reading) -> Dataset[AnyItem]:
        """Preference data in any form that is known, as an objective reads them.

        ``source`` is a path, a hub name, a ``datasets.Dataset``, rows,
        :class:`~prefero.data.examples.Examples`, or what this returned before. Raises
        :class:`~prefero.errors.PreferoError` naming the row.
        """

    @abstractmethod
    def batching(self, data: Dataset[AnyItem], packing: str) -> Batching:
        """The costs and the dealing of micro-batches of these items."""

    @abstractmethod
    def budget(self, packing: str, device: torch.device) -> int:
        """The most that a micro-batch costs, by default."""

    @abstractmethod
    def collate(self, items: Sequence[AnyItem], seeds: Sequence[int]) -> AnyInputs:
        """One micro-batch. What is drawn for an item (times, noise) depends on its seed alone, so that it is
        the same in any micro-batch and for all models."""

    # Models

    @abstractmethod
    def load(self) -> nn.Module:
        """The model that this kind was made of the source of."""

    @abstractmethod
    def other(self, name: str, dtype: torch.dtype) -> nn.Module:
        """Another model of the same kind, ready to score."""

    @abstractmethod
    def adapt(self, model: nn.Module, packing: PackingChoice = "auto", *, keep_dropout: bool = False) -> str:
        """Make the model score micro-batches; returns the packing that it will use."""

    @abstractmethod
    def score(
        self,
        model: nn.Module,
        inputs: AnyInputs,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        """Score the views of a micro-batch (``""``: the items themselves), in one call of the possibly
        wrapped model. Gradients follow the caller's grad mode; those of ``others``, which signals compare
        with, are off."""

    @abstractmethod
    def masks(self, inputs: AnyInputs) -> Mapping[str, Bool[Tensor, "example response token"]]:
        """Where :meth:`score` will give numbers, by view; no model runs for it."""

    def check(self, needs: Needs) -> None:
        """Raise :class:`~prefero.errors.PreferoError` for states, signals and views that this kind cannot
        give."""
        for method, states in needs.states.items():
            if states not in self.states:
                raise PreferoError(
                    f"{method} is made for {STATES[states]}, but a model of kind {self.name} scores "
                    f"{' or '.join(STATES[one] for one in sorted(self.states)) or 'responses as they are'}: "
                    "there it would be another method; `prefero methods` says what each is made for"
                )

    def scored_apart(self, model: nn.Module) -> str:
        """The texts that are scored apart from others because their numbers depend on these, in words: scores
        that were made otherwise are other numbers, which a disk cache has to tell."""
        return ""

    def state_sizes(self, model: nn.Module | SecondModel) -> Sizes:
        """How long the axes are that a model's states have behind their places."""
        return {"hidden": 1, "layer": 1}

    def leaves_out(self, model: nn.Module) -> bool:
        """Whether a step can pass by some of the weights that are trained."""
        return False

    def balance(self, model: nn.Module) -> tuple[float, str]:
        """The coefficient of the loss that balances the experts of a mixture, 0 for none, and why one that
        the model names is left out, if it is."""
        return 0.0, ""

    @property
    def saved_template(self) -> str | None:
        """The chat template of training, which is saved with the model in the place of its own; None where
        training used that, or none."""
        return None

    def saved_processor(self) -> Any:
        """The processor as it is saved beside the trained model."""
        return self.processor

    def notes_on_prompts(self) -> list[str]:
        """Notes on how to write the prompts of training for the saved model elsewhere."""
        return []

    def save_beside(self, model: nn.Module, folder: Path) -> None:
        """Write what other libraries read in the place of what ``save_pretrained`` wrote there."""
        return None

    # Samples, for the report

    def preview(self, data: Dataset[AnyItem], count: int) -> Preview | None:
        """The first rows as they are trained; None for kinds whose rows are no tokens of text."""
        return None

    def prompts(
        self, examples: Sequence[Example], count: int, max_length: int | None, **options: Any
    ) -> list[Any]:
        """The first distinct prompts that can be answered; none, for a kind that draws no samples.
        ``options`` are of :attr:`sample_options`."""
        return []

    def sampling(self, max_length: int | None, **options: Any) -> str:
        """How :meth:`sample` draws, in words."""
        return ""

    def sample(
        self, model: nn.Module, prompts: Sequence[Any], seed: int, max_length: int | None, **options: Any
    ) -> list[Any]:
        """A response to each prompt, the same for the same seed: text, or a mapping with ``image``, an
        address that a browser shows."""
        return []

    # Responses, for a judge

    def respond(
        self,
        model: nn.Module,
        prompts: Sequence[Text | Example],
        *,
        seed: int,
        count: int = 1,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        batch_size: int = 64,
        writing: Writing | None = None,
    ) -> Sequence[Answer]:
        """``count`` responses to each prompt, in the order of the prompts, with noise that the seed, the
        prompts and ``batch_size`` settle. ``writing`` is how prompts are written.

        Raises :class:`~prefero.errors.PreferoError` for settings that the kind does not have, and for a kind
        that draws no responses.
        """
        raise PreferoError(f"a model of kind {self.name} draws no responses that a judge could read")

    def shown(self, picture: Picture) -> Image.Image:
        """An image of the data as the model's own images are, for a judge."""
        return picture.open()
