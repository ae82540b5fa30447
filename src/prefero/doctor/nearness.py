"""Rows that nearly repeat or contradict another row, and held-out prompts in the training data.

A text is the set of its shingles, runs of eight bytes up to case and white space. Texts whose MinHashes
(Broder, 1997) agree in one of sixteen bands of four values are candidates, which are then measured on all
shingles. MinHashes are over the shingles at the beginnings of words, six times fewer: they miss a few in a
thousand near texts, all of them short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from zlib import crc32

import numpy as np
from datasketch import MinHash
from jaxtyping import UInt
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from prefero.doctor.checks import Finding, Look, Measure, Remedy, Unasked, specimen
from prefero.doctor.corpus import fingerprint
from prefero.doctor.repeats import judgements, judgements_of, repeats_of

WIDTH = 8
"""Bytes of a shingle."""

WORD_BEGINNING = re.compile(rb"(?<![a-z0-9])(?=(.{%d}))" % WIDTH, re.DOTALL)
"""A shingle at the beginning of a word; in a script without spaces, at every byte."""

VALUES, BANDS = 64, 16
"""Values of a MinHash, and the bands into which they are divided."""

NEAR = 0.8
"""The Jaccard similarity of shingles from which two texts are nearly the same."""

MOST = 50_000
"""Candidates that are measured."""

CLEARER = 0.05
"""How much more similar the crossed sides of two rows are than the straight ones if they are swapped."""

Sketches = UInt[np.ndarray, "text value"]

Row = tuple[int, str, str, str]
"""A row, its prompt, the better and the worse text."""


def _normalised(text: str) -> bytes:
    """A text without differences of case and white space."""
    return " ".join(text.split()).casefold().encode("utf-8", "replace")


def sketches(texts: Iterable[str]) -> Sketches:
    """The MinHash of each text, over the shingles at the beginnings of words."""
    beginnings = (WORD_BEGINNING.findall(_normalised(text) + bytes(WIDTH)) for text in texts)
    hashes = MinHash.generator(beginnings, num_perm=VALUES, hashfunc=crc32)
    return np.stack([np.empty(VALUES, np.uint32), *(each.hashvalues for each in hashes)])[1:]


def candidates(
    first: Sketches, second: Sketches | None = None, *, least: float = NEAR - 0.3
) -> NDArray[np.int64]:
    """Pairs of texts that may be near: (i, j) with i < j of one set, or i of the first and j of the second.
    Their sketches agree in a band, and in the share ``least`` of all values; of many, each is paired with the
    first."""
    sketches = first if second is None else np.concatenate([first, second])
    members = np.arange(len(sketches))
    agreeing = []
    for band in np.split(sketches, BANDS, axis=1):
        keys = np.ascontiguousarray(band).view(np.dtype((np.void, band.shape[1] * 4))).ravel()
        _, start, group = np.unique(keys, return_index=True, return_inverse=True)
        leader = start[group]
        paired = members != leader if second is None else (members >= len(first)) & (leader < len(first))
        agreeing.append(np.stack([leader[paired], members[paired]], axis=1))
    pairs = np.unique(np.concatenate(agreeing), axis=0)
    shares = (sketches[pairs[:, 0]] == sketches[pairs[:, 1]]).mean(1) if len(pairs) else np.empty(0)
    pairs = pairs[shares >= least]
    if second is not None:
        pairs[:, 1] -= len(first)
    return pairs


@lru_cache(maxsize=256)
def shingles(text: str) -> frozenset[bytes]:
    """The distinct shingles of a text; a short text is padded to one shingle."""
    padded = _normalised(text).ljust(WIDTH, b"\0")
    return frozenset(padded[start : start + WIDTH] for start in range(len(padded) - WIDTH + 1))


def similarity(text: str, other: str) -> float:
    """The Jaccard similarity of two texts: shared shingles over all shingles of the two."""
    ours, theirs = shingles(text), shingles(other)
    return len(ours & theirs) / len(ours | theirs)


@dataclass(frozen=True, slots=True)
class Nearness:
    """``near`` maps rows to the first that they nearly repeat, ``opposed`` are near contradictions."""

    near: Mapping[int, int]
    opposed: tuple[tuple[int, int], ...]
    measured: int
    candidates: int


def near_rows(rows: Sequence[Row]) -> Nearness:
    """Near rows among rows that do not repeat each other exactly."""
    pairs = candidates(sketches("\n".join((prompt, *sorted(sides))) for _, prompt, *sides in rows))
    measured = pairs[:MOST].tolist()
    relations = [_relation(rows[i], rows[j]) for i, j in measured]
    opposed = [
        (rows[i][0], rows[j][0])
        for (i, j), relation in zip(measured, relations, strict=True)
        if relation == "opposed"
    ]
    edges = np.asarray(
        [pair for pair, relation in zip(measured, relations, strict=True) if relation == "near"], int
    ).reshape(-1, 2)
    graph = csr_matrix((np.ones(len(edges)), edges.T), shape=(len(rows), len(rows)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    near = {rows[i][0]: rows[k][0] for i, k in enumerate(first[component].tolist()) if k != i}
    return Nearness(dict(sorted(near.items())), tuple(opposed), len(measured), len(pairs))


def _relation(first: Row, second: Row) -> str:
    """``near``, ``opposed`` (the same prompt and responses with the other label), or nothing."""
    (_, prompt, better, worse), (_, other_prompt, other_better, other_worse) = first, second
    if similarity(prompt, other_prompt) < NEAR:
        return ""
    straight = min(similarity(better, other_better), similarity(worse, other_worse))
    crossed = min(similarity(better, other_worse), similarity(worse, other_better))
    if crossed >= NEAR and crossed > straight + CLEARER:
        return "opposed"
    return "near" if straight >= NEAR else ""


def check_nearness(look: Look) -> Iterator[Finding]:
    """Rows that nearly repeat, or nearly contradict, another."""
    repeats = repeats_of(look)
    leave_out = {*repeats.repeated, *(row for group in repeats.contradicting for row in group[1:])}
    rows = [judgement for judgement in look.corpus.judgements if judgement[0] not in leave_out]
    if len(rows) < 2:
        return
    result = near_rows(rows)
    sample = (
        "Nearly the same: a Jaccard similarity of 0.8 or more of runs of eight bytes, of the prompt and of "
        "each response. Candidates are found by MinHash, which misses few such pairs of rows."
    )
    if result.measured < result.candidates:
        sample += f" Of {result.candidates:,} candidates {result.measured:,} were measured."
    near = tuple(result.near)
    share = Measure.share("rows that nearly repeat another", len(near), len(rows))
    yield look.finding(
        "near_duplicates",
        "Nearly repeated rows",
        share,
        f"{len(near):,} of {len(rows):,} rows have nearly the prompt, responses and label of another row.",
        limits=(0.01, 0.05),
        stake=share.value / 2,
        why="Near copies give a comparison more weight, and on both sides of a split they make held-out "
        "numbers too good.",
        papers=("Lee et al., 2022, arXiv 2107.06499",),
        remedies=(Remedy("Remove the later copies.", look.commands.without("near_duplicates")),),
        specimens=look.specimens(near, beside=result.near),
        sample=sample,
        rows=near,
    )
    against = tuple(sorted({row for pair in result.opposed for row in pair}))
    share = Measure.share("rows nearly contradicted by another", len(against), len(rows))
    yield look.finding(
        "near_contradictions",
        "Near contradictions",
        share,
        f"{len(against):,} of {len(rows):,} rows prefer nearly the response that another row, with nearly "
        "the same prompt, rejects.",
        limits=(0, 0.01),
        why="One of the two labels is wrong, or depends on the few words in which the rows differ.",
        papers=("Ray Chowdhury et al., 2024, arXiv 2403.00409",),
        remedies=(
            Remedy("Remove them.", look.commands.without("near_contradictions")),
            Remedy("Or train with a method that allows for wrong labels.", look.commands.train("cdpo")),
        ),
        specimens=[shown for pair in result.opposed[:2] for shown in look.specimens(pair)],
        sample=sample,
        rows=against,
    )


def prompts_nearby(train: Sequence[str], held_out: Sequence[str]) -> dict[int, int]:
    """The held-out prompts that are near a training prompt, each with the index of that prompt."""
    nearby: dict[int, int] = {}
    for i, j in candidates(sketches(train), sketches(held_out))[:MOST].tolist():
        if j not in nearby and similarity(train[i], held_out[j]) >= NEAR:
            nearby[j] = i
    return nearby


def check_overlap(look: Look) -> Iterator[Finding | Unasked]:
    """Held-out prompts that also occur in the training data, exactly or nearly."""
    held_out = look.held_out
    if held_out is None:
        yield Unasked("Overlap of training and held-out data", "no held-out data were named (--eval-data)")
        return
    train_prompts, test_prompts = list(look.corpus.prompts), list(held_out.prompts)
    train_keys, test_keys = (list(map(fingerprint, prompts)) for prompts in (train_prompts, test_prompts))
    trained = set(train_keys)
    exact = [row for row, key in enumerate(test_keys) if key in trained]
    others = [row for row, key in enumerate(test_keys) if key not in trained]
    nearby = prompts_nearby(train_prompts, [test_prompts[row] for row in others])
    near = [others[index] for index in nearby]
    known = {(prompt, frozenset(sides)) for _, prompt, *sides in judgements_of(look)}
    whole = sum((prompt, frozenset(sides)) in known for _, prompt, *sides in judgements(held_out))
    either = sorted([*exact, *near])
    share = Measure.share("held-out rows whose prompt, or nearly, is trained on", len(either), len(held_out))
    leaked, near_rows = {test_keys[row] for row in exact}, set(nearby.values())
    rows = tuple(row for row, key in enumerate(train_keys) if row in near_rows or key in leaked)
    yield look.finding(
        "overlap",
        "Held-out prompts in the training data",
        share,
        f"{len(either):,} of {len(held_out):,} held-out rows have a prompt that is in the training data: "
        f"{len(exact):,} exactly, {len(near):,} nearly. For {whole:,} of them both responses are there as "
        "well.",
        limits=(0, 0.01),
        of="held-out rows",
        measures=[
            Measure.share("the same prompt", len(exact), len(held_out)),
            Measure.share("the same prompt and responses", whole, len(held_out)),
        ],
        why="Held-out accuracy then measures memorised rows, and training stops too late.",
        papers=("Lee et al., 2022, arXiv 2107.06499",),
        remedies=(
            Remedy("Remove these prompts from the training data.", look.commands.without("overlap")),
            Remedy(
                "Or hold out a share of the training data: rows with the same prompt stay together.",
                replace(look.commands, eval_data="0.05").train("dpo"),
            ),
        ),
        specimens=[specimen(held_out, row) for row in either[:3]],
        sample="Nearly: a Jaccard similarity of 0.8 or more of runs of eight bytes.",
        rows=rows,
    )
