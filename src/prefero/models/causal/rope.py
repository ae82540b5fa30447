"""Rotary positions whose frequencies depend on the length of a forward: LongRoPE and dynamic NTK.

Such a model gives a text other numbers where a longer one goes through the network with it, padding included,
and dynamic NTK even where a longer one went before. Its own numbers are those of a text alone. Up to some
length the frequencies are the same, and a forest of such texts is scored like any other. A micro-batch with a
longer one is taken apart: no two responses share a prompt, whose states depend on what follows, and the texts
of one class of lengths go through the network together, in padded rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefero.data.packing import CellIndex, Forest
from prefero.errors import PreferoError

LONG, DYNAMIC = "longrope", "dynamic"
_SHORT = "original_max_position_embeddings"


@dataclass(frozen=True, slots=True)
class LengthRope:
    """The rotary positions of a model whose frequencies depend on length: those of texts of at most ``short``
    tokens do not. Beyond that LongRoPE has a second set for all lengths, and dynamic NTK one for each."""

    name: str
    short: int
    modules: tuple[nn.Module, ...]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self | None:
        """Those of this model; None where its frequencies are fixed. Raises :class:`PreferoError` where only
        some of its layers depend on length."""
        config: Any = model.config.get_text_config()
        rope = getattr(config, "rope_parameters", None) or {}
        kinds = [part.get("rope_type") for part in (rope, *rope.values()) if isinstance(part, dict)]
        name = next((kind for kind in kinds if kind in (LONG, DYNAMIC)), None)
        if name is None:
            return None
        if name != rope.get("rope_type"):
            raise PreferoError(
                f"some layers of {type(model).__name__} have rope of type {name}, others do not: frequencies "
                "that depend on the length of a forward are known of all layers alike only"
            )
        modules = tuple(module for module in model.modules() if hasattr(module, "original_inv_freq"))
        return cls(name, int(rope[_SHORT] if name == LONG else config.max_position_embeddings), modules)

    def reset(self) -> None:
        """Forget the longest text that dynamic NTK has seen."""
        for module in self.modules if self.name == DYNAMIC else ():
            rotary: Any = module
            rotary.max_seq_len_cached = rotary.original_max_seq_len
            rotary.inv_freq = rotary.original_inv_freq.to(rotary.inv_freq.device)

    def splits(self, forest: Forest) -> bool:
        """Whether a text of the forest is longer than ``short``."""
        return int(forest.depth.max()) >= self.short

    def classes(self, lengths: Sequence[int]) -> list[list[int]]:
        """The numbers of the texts of these lengths, those together that have the same frequencies."""
        classes: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            beyond = length if self.name == DYNAMIC else self.short + 1
            classes.setdefault(beyond if length > self.short else 0, []).append(number)
        return list(classes.values())

    @contextmanager
    def shortened(self, short: int) -> Iterator[None]:
        """Make texts long that have more than so many tokens, inside this context."""
        rotaries: Any = self.modules
        attributes = ("original_max_seq_len", "max_seq_len_cached")
        owners: list[tuple[Any, str]] = [(module, name) for module in rotaries for name in attributes]
        for config in {id(module.config): module.config for module in rotaries}.values():
            owners += [(config, "max_position_embeddings" if self.name == DYNAMIC else _SHORT)]
            owners += [(config.rope_parameters, _SHORT)] if self.name == LONG else []
        before = [(owner, name, value) for owner, name in owners if (value := _get(owner, name)) is not None]
        try:
            for owner, name, _ in before:
                _set(owner, name, short)
            yield
        finally:
            for owner, name, value in before:
                _set(owner, name, value)
            self.reset()


def _get(owner: Any, name: str) -> Any:
    return owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)


def _set(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


def apart(forest: Forest, models: Iterable[PreTrainedModel]) -> Forest:
    """The forest, every response with a prompt of its own where one of the models needs it."""
    ropes = [rope for model in models if (rope := LengthRope.of(model)) is not None]
    return _chains(forest) if any(rope.splits(forest) for rope in ropes) else forest


def _chains(forest: Forest) -> Forest:
    """The forest as one chain of nodes per cell."""
    last = torch.cat([cells.last.flatten() for cells in forest.cells.values()])
    node = torch.arange(len(forest), device=last.device)
    chain, old = ((node <= last[:, None]) & (last[:, None] < forest.end)).nonzero(as_tuple=True)
    lengths = forest.depth[last] + 1
    stops = lengths.cumsum(0)
    starts = stops - lengths
    cells, scored = {}, []
    first = position = 0
    for view, index in forest.cells.items():
        start = starts[first : first + index.last.numel()].view_as(index.last)
        first += index.last.numel()
        there = index.index >= 0
        places = torch.where(there, there.flatten().cumsum(0).view_as(index.index) - 1 + position, -1)
        nodes = start[..., None] + forest.depth[forest.scored[index.index.clamp(min=0)]]
        scored.append(nodes[there])
        position += len(scored[-1])
        ends = start + forest.depth[index.last], start + forest.depth[index.prompt_last]
        cells[view] = CellIndex(places, *ends)
    nodes = torch.cat(scored)
    return replace(
        forest,
        ids=forest.ids[old],
        depth=forest.depth[old],
        end=stops[chain],
        trees=tuple(pairwise([*starts.tolist(), int(stops[-1])])),
        scored=nodes,
        readout=nodes - 1,
        slot=torch.arange(len(nodes), device=nodes.device),
        cells=cells,
    )


def only(
    forest: Forest, trees: Sequence[int], nodes: Sequence[Int[Tensor, "some"]]
) -> tuple[Forest, list[Tensor], list[Tensor]]:
    """The forest of some trees alone; the places in each of ``nodes`` that are in it, and these nodes there.
    Its scored tokens are left as they are."""
    kept = torch.zeros(len(forest), dtype=torch.bool, device=forest.ids.device)
    for tree in trees:
        kept[slice(*forest.trees[tree])] = True
    place = kept.cumsum(0) - 1
    chosen = [kept[some].nonzero()[:, 0] for some in nodes]
    inside = [place[some[at]] for some, at in zip(nodes, chosen, strict=True)]
    end = place[forest.end[kept] - 1] + 1
    return replace(forest, ids=forest.ids[kept], depth=forest.depth[kept], end=end), chosen, inside
