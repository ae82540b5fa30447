"""Propositional formulas: parsed, written, as sets of assignments, and as decision diagrams.

Bit i of an assignment says whether proposition i holds; bit k of a set of assignments, whether assignment k
belongs to it. A decision diagram skips propositions that do not matter, so that their probabilities do not
enter a count: that of M(y_w) ∧ Ref(y_l) is one product, with no 1 − p in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Literal

from prefero.errors import PreferoError

MODELS = {"M": "policy", "Ref": "reference"}
RESPONSES = {"y_w": "chosen", "y_l": "rejected"}
MOST_PROPOSITIONS = 8
"""Formulas are solved by listing all assignments, and decompiled by listing sets of them."""


@dataclass(frozen=True, slots=True, order=True)
class Proposition:
    """That a model accepts the response at an address, such as ``"chosen"``: written ``M(y_w)``, with ``M``
    or ``Ref``, ``y_w`` or ``y_l``; others go by their own names, as in ``previous(gold)``."""

    model: str
    address: str

    def __str__(self) -> str:
        model = next((short for short, name in MODELS.items() if name == self.model), self.model)
        address = next((short for short, name in RESPONSES.items() if name == self.address), self.address)
        return f"{model}({address})"


Operator = Literal["not", "and", "or", "implies", "xor", "iff"]

SIGNS: Mapping[Operator, str] = {"not": "¬", "and": "∧", "or": "∨", "implies": "→", "xor": "⊕", "iff": "↔"}
MEANINGS: Mapping[Operator, Callable[..., bool]] = {
    "not": lambda a: not a,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "implies": lambda a, b: not a or b,
    "xor": lambda a, b: a != b,
    "iff": lambda a, b: a == b,
}


@dataclass(frozen=True, slots=True)
class Formula:
    """A proposition, a constant, or an operator and what it joins."""

    head: Proposition | bool | Operator
    parts: tuple[Formula, ...] = ()

    def holds(self, true: frozenset[Proposition]) -> bool:
        """Whether the formula holds when exactly these propositions do."""
        if isinstance(self.head, Proposition):
            return self.head in true
        if isinstance(self.head, bool):
            return self.head
        return MEANINGS[self.head](*(part.holds(true) for part in self.parts))

    def propositions(self) -> frozenset[Proposition]:
        if isinstance(self.head, Proposition):
            return frozenset({self.head})
        return frozenset().union(*(part.propositions() for part in self.parts))

    def assignments(self, propositions: Sequence[Proposition]) -> int:
        """The set of assignments of these propositions in which the formula holds."""
        return sum(
            self.holds(frozenset(one for i, one in enumerate(propositions) if k >> i & 1)) << k
            for k in range(2 ** len(propositions))
        )

    def __str__(self) -> str:
        if isinstance(self.head, Proposition):
            return str(self.head)
        if isinstance(self.head, bool):
            return "⊤" if self.head else "⊥"
        if self.head == "not":
            return f"¬{self.parts[0].bracketed()}"
        same = self.head in ("and", "or")
        return f" {SIGNS[self.head]} ".join(
            str(part) if same and part.head == self.head else part.bracketed() for part in self.parts
        )

    def bracketed(self) -> str:
        return f"({self})" if len(self.parts) == 2 else str(self)


TRUE, FALSE = Formula(True), Formula(False)

TOKEN = re.compile(
    r"(?P<proposition>(?P<model>[A-Za-z_]\w*)\s*\(\s*(?P<address>[A-Za-z_][\w@]*)\s*\))"
    r"|(?P<constant>⊤|⊥|true\b|false\b)"
    r"|(?P<operator><->|->|[¬~!∧&∨|→⊕^↔])"
    r"|(?P<bracket>[()])"
)
OPERATORS: Mapping[str, Operator] = {
    **{sign: operator for operator, sign in SIGNS.items()},
    "~": "not",
    "!": "not",
    "&": "and",
    "|": "or",
    "->": "implies",
    "^": "xor",
    "<->": "iff",
}
LOOSEST_FIRST: tuple[Operator, ...] = ("iff", "implies", "xor", "or", "and")


def parse(text: str) -> Formula:
    """The formula that a text writes, with ¬ ∧ ∨ → ⊕ ↔ or ``~ & | -> ^ <->``, brackets, and ⊤ ⊥ or ``true``
    and ``false``.

    ¬ binds closest, then ∧, ∨, ⊕, → (to the right) and ↔.

    Raises:
        PreferoError: at the place where the text is no formula.
    """
    tokens = list(tokenize(text))

    def fail(place: int, expected: str) -> PreferoError:
        return PreferoError(f"{text!r} is no formula: {expected} expected at character {place + 1}")

    def peek() -> tuple[int, str, Formula | Operator | str]:
        return tokens[0]

    def joined(level: int) -> Formula:
        if level == len(LOOSEST_FIRST):
            return unit()
        operator = LOOSEST_FIRST[level]
        left = joined(level + 1)
        while peek()[2] == operator:
            tokens.pop(0)
            right = joined(level) if operator == "implies" else joined(level + 1)
            left = Formula(operator, (left, right))
        return left

    def unit() -> Formula:
        place, _, value = tokens.pop(0)
        if isinstance(value, Formula):
            return value
        if value == "not":
            return Formula("not", (unit(),))
        if value == "(":
            inside = joined(0)
            place, _, value = tokens.pop(0)
            if value == ")":
                return inside
            raise fail(place, "`)`")
        raise fail(place, "a proposition such as M(y_w), ¬ or `(`")

    found = joined(0)
    if tokens[0][1] != "end":
        raise fail(tokens[0][0], "an operator or the end")
    return found


def tokenize(text: str) -> Iterator[tuple[int, str, Formula | Operator | str]]:
    """Place, kind and value of every token; the last is the end."""
    place = 0
    while rest := text[place:].lstrip():
        place = len(text) - len(rest)
        match = TOKEN.match(text, place)
        if match is None:
            raise PreferoError(
                f"{text!r} is no formula: character {place + 1} starts neither a proposition such as M(y_w), "
                "an operator, a bracket nor a constant"
            )
        start, place = place, match.end()
        kind = match.lastgroup or ""
        if match["proposition"]:
            model, address = match["model"], match["address"]
            named = Proposition(MODELS.get(model, model), RESPONSES.get(address, address))
            yield start, "proposition", Formula(named)
        elif match["constant"]:
            yield start, kind, TRUE if match["constant"] in ("⊤", "true") else FALSE
        elif match["operator"]:
            yield start, kind, OPERATORS[match["operator"]]
        else:
            yield start, kind, match["bracket"]
    yield len(text), "end", ""


def written(assignments: int, propositions: Sequence[Proposition]) -> Formula:
    """A short formula that holds in exactly these assignments: an or of ands, or an implication."""
    terms = shortest_terms(assignments, len(propositions))
    if not terms:
        return FALSE

    def literal(i: int, value: int) -> Formula:
        named = Formula(propositions[i])
        return named if value >> i & 1 else Formula("not", (named,))

    def conjunction(term: Term) -> Formula:
        fixed, value = term
        literals = [literal(i, value) for i in range(len(propositions)) if fixed >> i & 1]
        return chain("and", literals) if literals else TRUE

    premises = [fixed for fixed, value in terms if fixed.bit_count() == 1 and value == 0]
    rest = [term for term in terms if not (term[0].bit_count() == 1 and term[1] == 0)]
    if premises and rest:
        told = [Formula(propositions[fixed.bit_length() - 1]) for fixed in premises]
        return Formula("implies", (chain("and", told), chain("or", [conjunction(term) for term in rest])))
    return chain("or", [conjunction(term) for term in terms])


def chain(operator: Operator, formulas: Sequence[Formula]) -> Formula:
    return reduce(lambda left, right: Formula(operator, (left, right)), formulas)


Term = tuple[int, int]
"""The propositions that a term fixes, as bits, and the values that it gives them."""


def shortest_terms(assignments: int, propositions: int) -> list[Term]:
    """Prime implicants that together cover these assignments (Quine and McCluskey, the cover greedy)."""
    every = range(2**propositions)
    wanted = {k for k in every if assignments >> k & 1}
    prime: list[tuple[Term, set[int]]] = []
    for fixed in sorted(every, key=lambda bits: (bits.bit_count(), bits)):
        for value in sorted({k & fixed for k in wanted}):
            covered = {k for k in every if k & fixed == value}
            if covered <= wanted and not any(covered <= larger for _, larger in prime):
                prime.append(((fixed, value), covered))
    chosen: list[Term] = []
    while wanted:
        term, covered = max(prime, key=lambda one: len(one[1] & wanted))
        chosen.append(term)
        wanted = wanted - covered
    return chosen


@dataclass(frozen=True, slots=True)
class Decision:
    """A question about proposition ``index``, and what remains if it holds and if not; booleans are ends."""

    index: int
    if_true: Decision | bool
    if_false: Decision | bool


@cache
def diagram(assignments: int, propositions: int) -> Decision | bool:
    """The reduced diagram of a set of assignments of so many propositions; the last is asked about first."""
    if assignments == 0:
        return False
    if assignments == (1 << 2**propositions) - 1:
        return True
    half = 2 ** (propositions - 1)
    low = assignments & ((1 << half) - 1)
    if_false = diagram(low, propositions - 1)
    if_true = diagram(assignments >> half, propositions - 1)
    return if_true if if_true == if_false else Decision(propositions - 1, if_true, if_false)
