"""Preference structures: the assignments for and against the preference. :data:`PUBLISHED` has known
losses."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prefero.errors import PreferoError
from prefero.logic.formulas import FALSE, MOST_PROPOSITIONS, TRUE, Formula, Proposition, parse, written

Mark = Literal["for", "against", "both", "neither"]

MARKS: Mapping[tuple[int, int], Mark] = {(1, 0): "for", (0, 1): "against", (1, 1): "both", (0, 0): "neither"}


@dataclass(frozen=True, slots=True)
class PreferenceStructure:
    """What is preferred (``formula`` P), among which assignments (``condition`` P_C), and what counts on both
    sides (``both`` P_A): f = (P ∨ P_A) ∧ P_C speaks for the preference, f̄ = (¬P ∨ P_A) ∧ P_C against it.
    :func:`structure` reads one from text. Richardson et al., 2024, arXiv 2412.17696.

    Raises:
        PreferoError: f or f̄ never holds (an infinite log-ratio), or there are too many propositions.
    """

    formula: Formula
    condition: Formula = TRUE
    both: Formula = FALSE
    propositions: tuple[Proposition, ...] = field(init=False, compare=False)
    preferred: int = field(init=False, compare=False)
    dispreferred: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        parts = self.formula, self.condition, self.both
        named = tuple(sorted(frozenset().union(*(part.propositions() for part in parts)), key=reading_order))
        if len(named) > MOST_PROPOSITIONS:
            raise PreferoError(
                f"a preference structure has at most {MOST_PROPOSITIONS} propositions, and {self.formula} "
                f"with its conditions has {len(named)}"
            )
        preferred, dispreferred = self.over(named)
        object.__setattr__(self, "propositions", named)
        object.__setattr__(self, "preferred", preferred)
        object.__setattr__(self, "dispreferred", dispreferred)
        for never, side in ((self.preferred, "for"), (self.dispreferred, "against")):
            if not never:
                raise PreferoError(
                    f"nothing speaks {side} the preference {self.formula} under the condition "
                    f"{self.condition}, so its loss would be infinite; weaken the condition, or allow some "
                    f"assignments on both sides"
                )

    @property
    def formulas(self) -> dict[str, str]:
        """The three formulas as the method ``logic`` takes them."""
        return {"formula": str(self.formula), "condition": str(self.condition), "both": str(self.both)}

    def over(self, propositions: Sequence[Proposition]) -> tuple[int, int]:
        """f and f̄ as sets of assignments of these propositions, of which the structure's own are some."""
        parts = self.formula, self.condition, self.both
        formula, condition, both = (part.assignments(propositions) for part in parts)
        return (formula | both) & condition, (~formula | both) & condition

    def marks(self) -> list[Mark]:
        """On which side every assignment counts, in their order."""
        assignments = range(2 ** len(self.propositions))
        return [MARKS[self.preferred >> k & 1, self.dispreferred >> k & 1] for k in assignments]

    def entails(self, other: PreferenceStructure) -> bool:
        """f ⊨ f′ and f̄′ ⊨ f̄: then this loss is nowhere below the other's, with the same link and β."""
        (mine, against), (theirs, theirs_against) = self._together(other)
        return not mine & ~theirs and not theirs_against & ~against

    def equivalent(self, other: PreferenceStructure) -> bool:
        """The same f and f̄, and so the same loss."""
        mine, theirs = self._together(other)
        return mine == theirs

    def _together(self, other: PreferenceStructure) -> tuple[tuple[int, int], tuple[int, int]]:
        named = sorted({*self.propositions, *other.propositions}, key=reading_order)
        return self.over(named), other.over(named)

    def neighbours(self) -> Iterator[PreferenceStructure]:
        """The structures in which one assignment counts differently: where a search goes next."""
        for k, (first, second) in itertools.product(
            range(2 ** len(self.propositions)), itertools.product((0, 1), repeat=2)
        ):
            others = ~(1 << k)
            preferred = self.preferred & others | first << k
            dispreferred = self.dispreferred & others | second << k
            changed = (preferred, dispreferred) != (self.preferred, self.dispreferred)
            if changed and preferred and dispreferred:
                yield from_assignments(preferred, dispreferred, self.propositions)

    def against_reference(self) -> PreferenceStructure:
        """The structure of this log-ratio minus the reference's, which makes DPO of CPO. Raises
        :class:`PreferoError` if the structure is not of the policy alone."""
        if any(one.model != "policy" for one in self.propositions):
            raise PreferoError(f"only a structure of the policy alone has a reference put to it, not {self}")
        beside = [Proposition("reference", one.address) for one in self.propositions]
        number = len(beside)
        preferred = paired(self.preferred, self.dispreferred, number)
        dispreferred = paired(self.dispreferred, self.preferred, number)
        return from_assignments(preferred, dispreferred, [*self.propositions, *beside])

    def __str__(self) -> str:
        return f"{self.formula}  given {self.condition}  both ways {self.both}"


def structure(formula: str, condition: str = "true", both: str = "false") -> PreferenceStructure:
    """The preference structure of formulas as :func:`~prefero.logic.formulas.parse` reads them."""
    return PreferenceStructure(parse(formula), parse(condition), parse(both))


def paired(first: int, second: int, propositions: int) -> int:
    """The assignments of twice as many propositions whose first half is in one set and second in another."""
    size = 2**propositions
    return sum(first << k * size for k in range(size) if second >> k & 1)


def reading_order(proposition: Proposition) -> tuple[bool, str, bool, str]:
    """The policy's propositions first, chosen before all others."""
    model, address = proposition.model, proposition.address
    return model != "policy", model, address != "chosen", address


def from_assignments(
    preferred: int, dispreferred: int, propositions: Sequence[Proposition]
) -> PreferenceStructure:
    """The structure with these f and f̄, as formulas: P = f̄ → f, P_C = f ∨ f̄, P_A = f ∧ f̄, each shortened."""
    every = (1 << 2 ** len(propositions)) - 1
    return PreferenceStructure(
        written(~(dispreferred & ~preferred) & every, propositions),
        written(preferred | dispreferred, propositions),
        written(preferred & dispreferred, propositions),
    )


def every_structure(propositions: Sequence[Proposition]) -> Iterator[tuple[int, int]]:
    """All 4^(2ⁿ) pairs (f, f̄) over n propositions, as sets of assignments, also those without a finite
    loss."""
    sets = range(1 << 2 ** len(propositions))
    return itertools.product(sets, sets)


def decompile(
    numerator: Callable[..., float], denominator: Callable[..., float], propositions: Sequence[str]
) -> PreferenceStructure:
    """The preference structure of a loss on log(numerator/denominator), both polynomials in probabilities.

    Each takes the probabilities of the propositions (texts such as ``"M(y_w)"``), in their order ::

        decompile(lambda w, l: w * (1 - l), lambda w, l: l * (1 - w), ["M(y_w)", "M(y_l)"])

    is ORPO's. At the corners, where every probability is 0 or 1, such a polynomial is the truth table of its
    formula.

    Raises:
        PreferoError: one of the two is not the weighted count of any formula.
    """
    named = [parse(text).head for text in propositions]
    for text, one in zip(propositions, named, strict=True):
        if not isinstance(one, Proposition):
            raise PreferoError(f"{text!r} is no proposition such as M(y_w)")
    sides = [assignments_of(side, len(named)) for side in (numerator, denominator)]
    return from_assignments(sides[0], sides[1], [one for one in named if isinstance(one, Proposition)])


def assignments_of(polynomial: Callable[..., float], propositions: int) -> int:
    """The set of assignments whose weighted count the polynomial is."""
    found = 0
    for k in range(2**propositions):
        corner = [float(k >> i & 1) for i in range(propositions)]
        value = polynomial(*corner)
        if value not in (0, 1):
            raise PreferoError(
                f"a weighted count is 0 or 1 where all probabilities are; at {corner} this one is {value}"
            )
        found |= int(value) << k
    numbers = random.Random(0)
    for _ in range(4):
        inside = [numbers.uniform(0.1, 0.9) for _ in range(propositions)]
        count = weighted_count(found, inside)
        if abs(polynomial(*inside) - count) > 1e-9:
            raise PreferoError(
                f"a weighted count is linear in every probability; at {inside} this one is "
                f"{polynomial(*inside)}, and the count with its corners is {count}"
            )
    return found


def weighted_count(assignments: int, probabilities: Sequence[float]) -> float:
    """The probability that one of the assignments comes true, for independent propositions."""
    return sum(
        math.prod(p if k >> i & 1 else 1 - p for i, p in enumerate(probabilities))
        for k in range(2 ** len(probabilities))
        if assignments >> k & 1
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """The structure of a published loss, its probability of a response's tokens, and its meaning. Some term
    of ``methods`` is a link of its log-ratio."""

    structure: PreferenceStructure
    tokens: Literal["mean", "sum"]
    says: str
    methods: tuple[str, ...] = ()


_CPO = structure("M(y_l) -> M(y_w)", "M(y_w) | M(y_l)", "M(y_w) & M(y_l)")

PUBLISHED: Mapping[str, Reading] = {
    "cross_entropy": Reading(structure("M(y_w)"), "mean", "the chosen response is accepted"),
    "unlikelihood": Reading(
        structure("M(y_w) & ~M(y_l)"), "mean", "the chosen response is accepted and the rejected one is not"
    ),
    "f_unlikelihood": Reading(structure("~M(y_l)"), "mean", "the rejected response is not accepted"),
    "cpo": Reading(
        _CPO, "sum", "whoever accepts the rejected response accepts the chosen one", ("cpo", "slic")
    ),
    "simpo": Reading(_CPO, "mean", "as cpo, by means over tokens and with a margin", ("simpo",)),
    "orpo": Reading(
        structure("M(y_l) -> M(y_w)", "M(y_w) ^ M(y_l)"),
        "mean",
        "of responses of which exactly one is accepted, it is the chosen one",
        ("orpo",),
    ),
    "ccpo": Reading(
        structure("M(y_l) -> M(y_w)", "M(y_w) | M(y_l)"),
        "mean",
        "as cpo, but accepting both speaks only for the preference",
    ),
    "dpo": Reading(
        structure(
            "Ref(y_w) & M(y_l) -> Ref(y_l) & M(y_w)",
            "Ref(y_w) & M(y_l) | Ref(y_l) & M(y_w)",
            "M(y_w) & M(y_l) & Ref(y_w) & Ref(y_l)",
        ),
        "sum",
        "where the policy accepts the rejected and the reference the chosen response, the policy accepts the "
        "chosen and the reference the rejected one",
        ("dpo", "ipo"),
    ),
}
"""By the loss's own name. The structures of cross-entropy, unlikelihood, ORPO, cCPO and DPO are those of
Richardson et al., 2024, arXiv 2412.17696."""
