"""Labels from agreement: what most samples answer, or what most programs print, stands in for the truth.

Jiao et al., 2024, arXiv 2411.16345 (PFPO), and its released scripts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prefero.errors import PreferoError
from prefero.feedback.chains import is_read
from prefero.feedback.pairing import Pair

DID_NOT_RUN = -2


@dataclass(frozen=True, slots=True)
class Vote:
    """The most frequent answer, the first seen of equally frequent ones, and its share of all samples; None
    if no sample has an answer. If the vote is ``kept``, the places of the samples that agree with it, and of
    the others."""

    label: str | None
    frequency: float
    kept: bool
    agreeing: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def pairs(self) -> list[Pair]:
        return [(better, worse) for better in self.agreeing for worse in self.others]


def vote(answers: Sequence[str | None], threshold: float = 0.5) -> Vote:
    """The vote on one question; kept if its share is above ``threshold``, not only equal to it.

    An answer that could not be read is None, or empty: it has no vote and agrees with none. Equality is that
    of the strings. Raises :class:`PreferoError` without samples.
    """
    if not answers:
        raise PreferoError("a vote needs the answers of samples; got none.")
    votes = Counter(filter(is_read, answers))
    label, count = votes.most_common(1)[0] if votes else (None, 0)
    frequency = count / len(answers)
    if label is None or not frequency > threshold:
        return Vote(label, frequency, False, (), ())
    agreeing = tuple(place for place, answer in enumerate(answers) if answer == label)
    others = tuple(place for place, answer in enumerate(answers) if answer != label)
    return Vote(label, frequency, True, agreeing, others)


@dataclass(frozen=True, slots=True)
class PseudoTests:
    """Tests whose outputs were voted on. ``cases`` are the inputs that are kept, ``outputs`` what they should
    give, ``matches[i][j]`` whether program i gives it: 1, 0, or −2 where it did not run. ``confidence`` is
    the mean share of the most frequent output, over all inputs and all programs, whether they ran or not."""

    cases: tuple[int, ...]
    outputs: tuple[str, ...]
    matches: tuple[tuple[int, ...], ...]
    confidence: float

    @property
    def passed(self) -> list[int]:
        """How many tests each program passes."""
        return [row.count(1) for row in self.matches]

    def pairs(self, margin: float = 1, lower: float = 0.5) -> list[Pair]:
        """Programs that pass at least the share ``lower`` of the tests, each against those that pass at least
        ``margin`` tests fewer."""
        if not self.cases:
            return []
        passed = self.passed
        return [
            (better, worse)
            for better, many in enumerate(passed)
            if many / len(self.cases) >= lower
            for worse, few in enumerate(passed)
            if better != worse and many - few >= margin
        ]


def pseudo_tests(
    outputs: Sequence[Sequence[object]],
    ran: Sequence[Sequence[bool]],
    *,
    fewest: int = 1,
    skip_empty: bool = False,
) -> PseudoTests:
    """Tests from the outputs of programs on the same inputs: of each input the most frequent output, the
    first seen of equally frequent ones, among the programs that ran on it.

    ``outputs[i][j]`` is what program i gives for input j. An input that fewer than ``fewest`` programs ran
    on, or none, is left out. ``skip_empty`` takes an empty output for a program that did not run.
    """
    votes = [
        [
            str(output) if did and not (skip_empty and not str(output)) else None
            for output, did in zip(row, of_row, strict=True)
        ]
        for row, of_row in zip(outputs, ran, strict=True)
    ]
    counts = [Counter(one for one in column if one is not None) for column in zip(*votes, strict=True)]
    kept = tuple(case for case, count in enumerate(counts) if count and count.total() >= fewest)
    winners = {case: counts[case].most_common(1)[0][0] for case in kept}
    tops = [max(count.values(), default=0) for count in counts]
    return PseudoTests(
        kept,
        tuple(winners[case] for case in kept),
        tuple(
            tuple(DID_NOT_RUN if row[case] is None else int(row[case] == winners[case]) for case in kept)
            for row in votes
        ),
        sum(tops) / (len(votes) * len(counts)) if counts else 0.0,
    )


def by_value(values: Sequence[int], threshold: int) -> tuple[list[int], list[int]]:
    """Prefixes of solutions whose completions reach the label at least ``threshold`` times, and the others.

    A prefix is no whole response: it gets no end token.
    """
    good = [place for place, value in enumerate(values) if value >= threshold]
    return good, [place for place, value in enumerate(values) if value < threshold]
