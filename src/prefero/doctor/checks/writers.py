"""Whether it is told by who wrote a response which one is chosen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from prefero.doctor.findings import Finding, Measure, Remedy, Unasked, level_of
from prefero.doctor.look import Look
from prefero.evaluate.intervals import wilson
from prefero.report.numbers import percent

MOST = 5


def check(look: Look) -> Iterator[Finding | Unasked]:
    ties = set(look.corpus.ties)
    writers = [both for row, both in look.corpus.writers.items() if row not in ties]
    if not writers:
        yield Unasked("Who wrote what", "no row names the writers (chosen_model, rejected_model)")
        return
    differing = [both for both in writers if both[0] != both[1]]
    different = Measure.share("pairs of two writers", len(differing), len(writers))
    guessed = predicted(writers)
    accuracy = Measure("pairs put right by their writers' names", guessed, wilson(guessed, len(writers)))
    wins, seen = Counter(first for first, _ in differing), Counter(one for both in differing for one in both)
    ranked = sorted(seen, key=lambda name: wins[name] / seen[name], reverse=True)
    table = "; ".join(
        f"{name} {percent(wins[name] / seen[name])} of {seen[name]:,}" for name in ranked[:MOST]
    )
    yield Finding(
        "writers",
        "Who wrote what",
        level_of(accuracy, look=0.65, act=0.8),
        f"{len(differing):,} of {len(writers):,} pairs compare two writers, and their names alone put "
        f"{percent(guessed)} of all pairs right. Chosen where it meets another: {table}"
        + ("; …" if len(ranked) > MOST else "."),
        (accuracy, different),
        stake=max(0.0, 2 * guessed - 1),
        why="Where one writer nearly always wins, the pairs teach its style, whatever the labels were about.",
        papers=("Wang et al., 2025, arXiv 2504.02193",),
        threshold="65 %; to act on from 80 %",
        remedies=(
            Remedy(
                "Compare responses of one writer with each other, best the policy's own; until then let "
                "unlikely responses count less.",
                look.commands.train("wpo"),
            ),
        ),
    )


def predicted(writers: Sequence[tuple[str, str]]) -> float:
    """The share of pairs whose chosen writer won more often in the other half of the data; a draw is half."""
    right = 0.0
    for half in (0, 1):
        balance: defaultdict[tuple[str, str], int] = defaultdict(int)
        for winner, loser in writers[1 - half :: 2]:
            balance[winner, loser] += 1
            balance[loser, winner] -= 1
        for both in writers[half::2]:
            lead = balance[both]
            right += 0.5 if lead == 0 or both[0] == both[1] else float(lead > 0)
    return right / len(writers)
