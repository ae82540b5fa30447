"""Images among token ids, and what a model is given of the images of a row.

An image stands in a prompt as as many tokens as the model makes of it. Their ids are negative, no two are
equal, and they are a hash of what is seen: so a trie shares an image exactly where it is the same image, and
a hash of token ids covers the images too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from prefero.errors import PreferoError

PLACE_BITS = 17
"""Bits of an id that count the tokens of an image; the other 46 are its key."""

MOST_TOKENS = 2**PLACE_BITS

Arrays = Mapping[str, Tensor]
"""What a processor makes of an image: ``pixel_values`` and what else its model asks for."""


def image_key(digest: bytes) -> int:
    """What stands for an image in ids, made of a hash of it."""
    return int.from_bytes(digest[:8], "big") >> (PLACE_BITS + 1)


def image_ids(key: int, tokens: int) -> NDArray[np.int64]:
    """The ids of an image's tokens."""
    return ~((key << PLACE_BITS) | np.arange(tokens, dtype=np.int64))


@overload
def keys_of(ids: Tensor) -> Tensor: ...
@overload
def keys_of(ids: NDArray[np.int64]) -> NDArray[np.int64]: ...
def keys_of(ids: Tensor | NDArray[np.int64]) -> Tensor | NDArray[np.int64]:
    """The keys of the images that tokens belong to; -1 for text."""
    return (~ids >> PLACE_BITS) * (ids < 0) - 1 * (ids >= 0)


@dataclass(frozen=True, slots=True, eq=False)
class ImageBatch:
    """The distinct images of a row: their ``keys`` in order, the number of tokens of each, and its arrays."""

    keys: Int[Tensor, "image"]
    counts: Int[Tensor, "image"]
    arrays: tuple[Arrays, ...]

    @classmethod
    def of(cls, ids: Iterable[NDArray[np.int64]], arrays: Mapping[int, Arrays]) -> ImageBatch | None:
        """The images that ``ids`` speak of, with their arrays by key; None where there is none.

        Raises :class:`PreferoError` where an image is not among the arrays.
        """
        tokens = np.unique(np.concatenate([row[row < 0] for row in ids]))
        keys, counts = np.unique(keys_of(tokens), return_counts=True)
        if not len(keys):
            return None
        if missing := set(keys.tolist()) - set(arrays):
            raise PreferoError(
                f"{len(missing)} of the {len(keys)} images of a row were not given to pack(): read the data "
                "with the kind of vision-language models, which keeps them"
            )
        return cls(torch.from_numpy(keys), torch.from_numpy(counts), tuple(arrays[int(key)] for key in keys))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ImageBatch:
        return ImageBatch(
            self.keys.to(device, non_blocking=non_blocking),
            self.counts.to(device, non_blocking=non_blocking),
            tuple(
                {name: array.to(device, non_blocking=non_blocking) for name, array in arrays.items()}
                for arrays in self.arrays
            ),
        )

    def places(self, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "token"]:
        """Where the image tokens among ``ids``, in their order, stand among the tokens of all images."""
        tokens = ids[ids < 0]
        starts = self.counts.cumsum(0) - self.counts
        return starts[torch.searchsorted(self.keys, keys_of(tokens))] + (~tokens & (MOST_TOKENS - 1))

    def shown(self, ids: Int[Tensor, "*shape"]) -> list[int]:
        """The numbers of the images whose first token is among ``ids``, in the order in which they are."""
        first = ids[(ids < 0) & ((~ids & (MOST_TOKENS - 1)) == 0)]
        return torch.searchsorted(self.keys, keys_of(first)).tolist()
