"""Texts that are nearly the same, found without comparing all with all.

Texts are sets of shingles of eight bytes, behind one another, of the text without differences of case and
white space. A sketch is a one-permutation MinHash (Broder, 1997; Li, Owen and Zhang, 2012) whose empty bins
borrow from full ones (Shrivastava, 2017). Texts that agree in one of sixteen bands of four bins are
candidates; what is called near is then measured on the shingles themselves. Of texts with a Jaccard
similarity of 0.8 the bands miss one in five thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt
from numpy.typing import NDArray

WIDTH = 8
BINS = 64
BANDS = 16
NEAR = 0.8
"""Jaccard similarity of shingles from which on two texts are nearly the same."""

BATCH = 1 << 22

Sketches = UInt[np.ndarray, "text bin"]

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)


def normal(text: str) -> bytes:
    """A text without differences of case and white space, one shingle long at least."""
    return " ".join(text.split()).casefold().encode().ljust(WIDTH, b"\0")


def sketches(texts: Iterable[str]) -> Sketches:
    """The sketch of each text, made of a few megabytes of text at a time."""
    parts = [_sketch(batch) for batch in _batches(texts)]
    return np.concatenate(parts) if parts else np.empty((0, BINS), np.uint32)


def _batches(texts: Iterable[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(normal(text))
        size += len(batch[-1])
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _windows(joined: bytes) -> NDArray[np.uint64]:
    """A number for the eight bytes from every place on."""
    count = len(joined) - WIDTH + 1
    read = np.ndarray((count,), "<u8", joined, strides=(1,)).astype(np.uint64)
    read *= _ODD
    read ^= read >> np.uint64(32)
    read *= _MIX
    read ^= read >> np.uint64(29)
    return read


def _sketch(texts: Sequence[bytes]) -> Sketches:
    lengths = np.asarray([len(text) for text in texts])
    ends = np.cumsum(lengths)
    hashes = _windows(b"".join(texts))
    inside = np.ones(len(hashes) + WIDTH - 1, bool)
    for back in range(1, WIDTH):
        inside[ends - back] = False
    inside = inside[: len(hashes)]
    owner = np.repeat(np.arange(len(texts)), lengths - (WIDTH - 1))
    hashes = hashes[inside]
    bins = (hashes >> np.uint64(64 - 6)).astype(np.int64)
    table = np.full(len(texts) * BINS, EMPTY)
    np.minimum.at(table, owner * BINS + bins, (hashes & np.uint64(0xFFFFFFFE)).astype(np.uint32))
    return _filled(table.reshape(len(texts), BINS))


EMPTY = np.uint32(0xFFFFFFFF)


def _filled(table: Sketches) -> Sketches:
    """Every empty bin takes the value of a full one, by a walk that depends on the bin alone."""
    generator = np.random.default_rng(0)
    full = table != EMPTY
    result = table.copy()
    open_ = ~full
    while open_.any():
        lender = generator.integers(BINS, size=BINS)
        takes = open_ & full[:, lender]
        result[takes] = table[:, lender][takes]
        open_ &= ~takes
    return result


def candidates(
    first: Sketches, second: Sketches | None = None, *, least: float = NEAR - 0.15
) -> NDArray[np.int64]:
    """Pairs of texts that may be near: (i, j) with i < j of one set, or i of the first and j of the second.

    In a crowd of texts that all agree, each is paired with the crowd's first alone. Pairs whose sketches
    agree in a smaller share of their bins than ``least`` are left out.
    """
    both = first if second is None else np.concatenate([first, second])
    found = []
    for band in np.split(both, BANDS, axis=1):
        keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.shape[1] * 4))).ravel()
        _, place, crowd = np.unique(keys, return_index=True, return_inverse=True)
        found.append(_to_the_first(place[crowd], None if second is None else len(first)))
    pairs = np.unique(np.concatenate(found), axis=0)
    alike = (both[pairs[:, 0]] == both[pairs[:, 1]]).mean(1) if len(pairs) else np.empty(0)
    pairs = pairs[alike >= least]
    if second is not None:
        pairs[:, 1] -= len(first)
    return pairs


def _to_the_first(leader: NDArray[np.int64], border: int | None) -> NDArray[np.int64]:
    """Every text with the first of its crowd. Across a border, texts behind it with the first before it."""
    members = np.arange(len(leader))
    other = members != leader if border is None else (members >= border) & (leader < border)
    return np.stack([leader[other], members[other]], axis=1)


def shingles(text: str) -> NDArray[np.uint64]:
    """The distinct shingles of a text, in order."""
    return np.unique(_windows(normal(text)))


def jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """Shared shingles over all shingles of the two."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
