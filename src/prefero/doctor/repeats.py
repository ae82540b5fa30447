"""Repeated rows, contradicting labels, identical responses, and cycles of preferences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from prefero.doctor.checks import Finding, Look, Measure, Remedy, shared
from prefero.doctor.corpus import OTHER_LABEL, Corpus, Pair, fingerprint

Judgement = tuple[int, int, int, int]
"""A row, with fingerprints of its prompt, the better and the worse text."""


def judgements(corpus: Corpus) -> list[Judgement]:
    """The judgements of the rows, with a fingerprint for every text."""
    return [
        (row, fingerprint(prompt), fingerprint(better), fingerprint(worse))
        for row, prompt, better, worse in corpus.judgements
    ]


@dataclass(frozen=True, slots=True)
class Repeats:
    """``repeated`` maps rows to the earlier row that they repeat; ``contradicting`` are groups of rows with
    the same comparison and both labels; ``identical`` rows have one text on both sides; ``judged`` are the
    outcomes of repeated comparisons; ``cyclic`` rows are on cycles of three or more responses, without
    contradictions."""

    repeated: Mapping[int, int]
    contradicting: tuple[tuple[int, ...], ...]
    identical: tuple[int, ...]
    judged: tuple[tuple[int, int], ...]
    cyclic: tuple[int, ...]
    cyclic_prompts: int


def find(judged: Sequence[Judgement]) -> Repeats:
    """Find repeats, contradictions and cycles."""
    comparisons: dict[tuple[int, frozenset[int]], dict[int, list[int]]] = defaultdict(dict)
    identical = []
    for row, prompt, better, worse in judged:
        if better == worse:
            identical.append(row)
        else:
            comparisons[prompt, frozenset((better, worse))].setdefault(better, []).append(row)
    repeated: dict[int, int] = {}
    contradicting, outcomes, edges = [], [], []
    for (prompt, sides), rows_by_winner in comparisons.items():
        for better, (first, *later) in rows_by_winner.items():
            repeated.update(dict.fromkeys(later, first))
            if len(rows_by_winner) == 1 and fingerprint(OTHER_LABEL) not in sides:
                (worse,) = sides - {better}
                edges += [(row, prompt, better, worse) for row in (first, *later)]
        counts = [len(rows) for rows in rows_by_winner.values()]
        if len(counts) == 2:
            contradicting.append(tuple(sorted(row for rows in rows_by_winner.values() for row in rows)))
        if sum(counts) > 1:
            outcomes.append((counts[0], sum(counts[1:])))
    cyclic, cyclic_prompts = _on_cycles(edges)
    return Repeats(
        dict(sorted(repeated.items())),
        tuple(contradicting),
        tuple(identical),
        tuple(outcomes),
        cyclic,
        cyclic_prompts,
    )


def _on_cycles(edges: Sequence[Judgement]) -> tuple[tuple[int, ...], int]:
    """The rows between responses of one strongly connected component, and the number of their prompts."""
    if not edges:
        return (), 0
    nodes: dict[tuple[int, int], int] = {}
    ends = [
        (nodes.setdefault((prompt, better), len(nodes)), nodes.setdefault((prompt, worse), len(nodes)))
        for _, prompt, better, worse in edges
    ]
    sources, targets = zip(*ends, strict=True)
    graph = csr_matrix((np.ones(len(ends)), (sources, targets)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, connection="strong")
    closed = [
        (row, prompt)
        for (row, prompt, _, _), (source, target) in zip(edges, ends, strict=True)
        if component[source] == component[target]
    ]
    return tuple(sorted(row for row, _ in closed)), len({prompt for _, prompt in closed})


@shared
def judgements_of(look: Look) -> list[Judgement]:
    """The judgements of the training data."""
    return judgements(look.corpus)


@shared
def repeats_of(look: Look) -> Repeats:
    """The repetitions in the training data."""
    return find(judgements_of(look))


@shared
def distinct_pairs(look: Look) -> list[Pair]:
    """The pairs without repetitions."""
    repeated = repeats_of(look).repeated
    return [pair for pair in look.corpus.pairs if pair.row not in repeated]


def check_repeats(look: Look) -> Iterator[Finding]:
    """Repeated rows, contradicting rows, pairs of identical responses, cycles."""
    repeats = repeats_of(look)
    rows = len(judgements_of(look))
    if not rows:
        return
    yield _duplicates(look, repeats, rows)
    yield _contradictions(look, repeats, rows)
    if repeats.identical or look.corpus.pairs:
        yield _identical(look, repeats, rows)
    prompts = [prompt for _, prompt, _, _ in judgements_of(look)]
    some_prompt_has_several_pairs = look.corpus.pairs and len(prompts) - len(set(prompts)) > 1
    if repeats.cyclic or some_prompt_has_several_pairs:
        yield _cycles(look, repeats, rows)


def _duplicates(look: Look, repeats: Repeats, rows: int) -> Finding:
    repeated = tuple(repeats.repeated)
    share = Measure.share("rows that repeat an earlier one", len(repeated), rows)
    return look.finding(
        "duplicates",
        "Repeated rows",
        share,
        f"{len(repeated):,} of {rows:,} rows have the prompt, the responses and the label of an earlier "
        "row, up to white space and case.",
        limits=(0.005, 0.02),
        why="A pair that occurs k times has k times the weight, and copies on both sides of a split make "
        "held-out numbers too good.",
        papers=("Lee et al., 2022, arXiv 2107.06499",),
        remedies=(Remedy("Remove the repetitions.", look.commands.without("duplicates")),),
        specimens=look.specimens(repeated, beside=repeats.repeated),
        rows=repeated,
    )


def _contradictions(look: Look, repeats: Repeats, rows: int) -> Finding:
    against = tuple(row for group in repeats.contradicting for row in group)
    share = Measure.share("rows whose comparison has both labels", len(against), rows)
    return look.finding(
        "contradictions",
        "Contradicting labels",
        share,
        f"{len(repeats.contradicting):,} comparisons occur with both labels, on {len(against):,} of {rows:,} "
        "rows.",
        limits=(0, 0.01),
        why="The two labels cancel each other where they are equally frequent, and a loss that trusts its "
        "labels (DPO) drives the policy back and forth between them. Where both labels are honest, people "
        "disagree, and a smoothed label says so.",
        papers=("Ray Chowdhury et al., 2024, arXiv 2403.00409", "Azar et al., 2023, arXiv 2310.12036"),
        remedies=(
            Remedy("Remove all of them.", look.commands.without("contradictions")),
            Remedy("Or train with a method that allows for wrong labels.", look.commands.train("cdpo")),
        ),
        specimens=look.specimens(against, 2),
        rows=against,
    )


def _identical(look: Look, repeats: Repeats, rows: int) -> Finding:
    share = Measure.share("pairs with identical responses", len(repeats.identical), rows)
    return look.finding(
        "identical",
        "Identical responses",
        share,
        f"{len(repeats.identical):,} of {rows:,} pairs have two responses that differ only in white space or "
        "case.",
        limits=(0, 0.01),
        of="pairs",
        why="Such a pair prefers a line break. Its margin grows only while both responses become unlikely.",
        papers=("Pal et al., 2024, arXiv 2402.13228",),
        remedies=(Remedy("Remove them.", look.commands.without("identical")),),
        rows=repeats.identical,
    )


def _cycles(look: Look, repeats: Repeats, rows: int) -> Finding:
    share = Measure.share("rows on a cycle of preferences", len(repeats.cyclic), rows)
    return look.finding(
        "cycles",
        "Cyclic preferences",
        share,
        f"Prompts with cyclic preferences (a over b, b over c, c over a): {repeats.cyclic_prompts:,}, on "
        f"{len(repeats.cyclic):,} of {rows:,} rows.",
        limits=(0, 0.05),
        stake=share.value / 3,
        why="No reward orders the responses of a cycle, so Bradley–Terry methods (DPO among them) fit at "
        "most two of three labels. Either a label is wrong, or the preference is not transitive.",
        papers=("Zhang et al., 2024, arXiv 2410.02197", "Munos et al., 2023, arXiv 2312.00886"),
        remedies=(
            Remedy("Use a general preference model, which can represent cycles.", look.commands.train("gpm")),
            Remedy("Or remove them.", look.commands.without("cycles")),
        ),
        rows=repeats.cyclic,
    )
