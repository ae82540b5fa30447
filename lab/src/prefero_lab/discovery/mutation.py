"""New losses out of those that did well: one change, or two blended."""

from __future__ import annotations

import ast
import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefero.errors import PreferoError
from prefero.objectives.configurations import from_config
from prefero.objectives.expressions import Expression, operands, parse, walk
from prefero.objectives.registry import find
from prefero_lab.discovery.archive import Entry, Proposal, canonical, ranked, signature

ATTEMPTS = 200
RIVALS = 3
"""Entries of which the fittest becomes a parent."""

SHAPES = (("softplus", "relu", "exp", "square", "tanh", "sigmoid", "abs"), ("minimum", "maximum"))
"""Functions that can take each other's place."""

LEAVES = (
    "z",
    "-z",
    "1 - z",
    "chosen_ratio",
    "rejected_ratio",
    "chosen_mean_logp - rejected_mean_logp",
    "chosen_mean_logp",
    "-beta * chosen_ratio",
    "-beta * rejected_ratio",
    "detach(z)",
)
GATES = ("0.5", "sigmoid(z / 0.05)", "sigmoid(z)", "sigmoid(-z)", "detach(sigmoid(-z))", "sigmoid(1 - z)")
FACTORS = ("detach(sigmoid(-z))", "sigmoid(-z)", "(1 + tanh(-z))", "where(z < 0, 2.0, 0.5)")
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)


class Mutation:
    """Changes a parent, which won a small tournament of fitness, in one place; or blends two parents."""

    origin = "mutation"

    def __call__(self, entries: Sequence[Entry], numbers: random.Random) -> Proposal:
        """Raises :class:`~prefero.errors.PreferoError` if no new objective is found near the parents."""
        tried = {signature(entry.objective) for entry in entries}
        scored = ranked(entries)
        if not scored:
            raise PreferoError("a mutation needs a scored entry to start from, and every seed was rejected")
        for _ in range(ATTEMPTS):
            parents = [parent_of(scored, numbers) for _ in range(2)]
            change = numbers.choice(CHANGES)
            try:
                objective, thought, count = change(parents[0].objective, parents[1].objective, numbers)
                objective = canonical(objective)
                from_config(objective)  # what cannot be made, or trains nothing, is no proposal
            except (PreferoError, LookupError):
                continue
            if signature(objective) not in tried:
                used = tuple(dict.fromkeys(parent.number for parent in parents[:count]))
                return Proposal(f"child of {' and '.join(map(str, used))}", objective, thought, used)
        raise PreferoError(f"{ATTEMPTS} mutations of {len(scored)} entries gave nothing new")


def parent_of(scored: Sequence[Entry], numbers: random.Random) -> Entry:
    """The fittest of a few, of entries in the order of their fitness."""
    return scored[min(numbers.randrange(len(scored)) for _ in range(RIVALS))]


Change = Callable[[Mapping[str, Any], Mapping[str, Any], random.Random], tuple[Mapping[str, Any], str, int]]
"""Two parents → the child's objective, a description of the change, the number of its parents."""


def written(objective: Mapping[str, Any]) -> Expression:
    if objective.get("method") != "expression":
        raise LookupError("not written as an expression")
    return parse(str(objective.get("loss", "softplus(-z)")))


def rewrite(
    objective: Mapping[str, Any], numbers: random.Random, part: Callable[[ast.expr], str | None], thought: str
) -> tuple[Mapping[str, Any], str, int]:
    """The objective with one of its parts replaced by what ``part`` makes of it."""
    tree = copy.deepcopy(written(objective).tree)
    options = [(node, new) for node in walk(tree) if (new := part(node)) is not None]
    node, new = options[numbers.randrange(len(options))] if options else (None, "")
    if node is None:
        raise LookupError("nothing to change")
    before = ast.unparse(node)
    return {**objective, "loss": swapped(tree, node, new)}, f"{thought}: {before} became {new}", 1


def swapped(tree: ast.expr, node: ast.expr, new: str) -> str:
    class Swap(ast.NodeTransformer):
        def visit(self, visited: ast.AST) -> ast.AST:
            return ast.parse(new, mode="eval").body if visited is node else self.generic_visit(visited)

    return ast.unparse(Swap().visit(tree))


def another_number(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    def part(node: ast.expr) -> str | None:
        if not isinstance(node, ast.Constant):
            return None
        value = node.value if isinstance(node.value, int | float) else 0.0
        return f"{rounded((value or 0.1) * math.exp(numbers.gauss(0, 0.7)))}"

    return rewrite(objective, numbers, part, "another number")


def another_function(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    def part(node: ast.expr) -> str | None:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return None
        group = next((names for names in SHAPES if node.func.id in names), ())
        others = [name for name in group if name != node.func.id]
        inner = ", ".join(map(ast.unparse, operands(node)))
        return f"{numbers.choice(others)}({inner})" if others else None

    return rewrite(objective, numbers, part, "another function")


def another_leaf(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    def part(node: ast.expr) -> str | None:
        return f"({numbers.choice(LEAVES)})" if isinstance(node, ast.Name) else None

    return rewrite(objective, numbers, part, "another quantity")


def shift(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    def part(node: ast.expr) -> str | None:
        margin = rounded(numbers.choice(STRENGTHS) * numbers.choice((1, 3)))
        return f"(z - {margin})" if isinstance(node, ast.Name) and node.id == "z" else None

    return rewrite(objective, numbers, part, "a margin to win by")


def factor(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    chosen = numbers.choice(FACTORS)
    loss = f"{chosen} * ({written(objective).text})"
    return {**objective, "loss": loss}, f"weighed by {chosen}", 1


def addition(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    strength, leaf = numbers.choice(STRENGTHS), numbers.choice(LEAVES[1:])
    shape = numbers.choice(("softplus", "square", "relu"))
    loss = f"{written(objective).text} + {strength} * {shape}({leaf})"
    return {**objective, "loss": loss}, f"plus {strength} times the {shape} of {leaf}", 1


def blend(objective: Mapping[str, Any], other: Mapping[str, Any], numbers: random.Random) -> Any:
    first, second, gate = written(objective).text, written(other).text, numbers.choice(GATES)
    if first == second:
        raise LookupError("one parent")
    loss = f"(1 - {gate}) * ({first}) + {gate} * ({second})"
    return {**objective, "loss": loss}, f"two losses blended by {gate}", 2


def another_argument(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    """Another value of one of the method's numbers, β among them."""
    parameters = find(str(objective["method"])).parameters
    ranged = [name for name, one in parameters.items() if one.range is not None and not one.required]
    name = ranged[numbers.randrange(len(ranged))]
    value = objective.get(name, parameters[name].default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise LookupError("not a number")
    changed = rounded((value or 0.1) * math.exp(numbers.gauss(0, 0.7)))
    parameters[name].checked(changed, str(objective["method"]))
    return {**objective, name: changed}, f"{name} became {changed}", 1


def likelihood(objective: Mapping[str, Any], _: Any, numbers: random.Random) -> Any:
    """With the chosen response's likelihood, or without it again."""
    if "plus" in objective:
        return {name: value for name, value in objective.items() if name != "plus"}, "nothing added", 1
    strength = numbers.choice(STRENGTHS)
    return {**objective, "plus": {"nll": strength}}, f"plus {strength} times the chosen's likelihood", 1


CHANGES: tuple[Change, ...] = (
    another_number,
    another_function,
    another_leaf,
    shift,
    factor,
    addition,
    blend,
    blend,
    another_argument,
    another_argument,
    likelihood,
)


def rounded(value: float) -> float:
    """To two digits: what a person would write."""
    return float(f"{value:.2g}")
