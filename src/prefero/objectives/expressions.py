"""A small language for the loss of a pair, which is read and never run as code::

    softplus(-z)                                                        # DPO
    (1 - sigmoid(z / 0.05)) * softplus(-z) + sigmoid(z / 0.05) * exp(-z)    # DiscoPOP
    softplus(-(2.0 * (chosen_mean_logp - rejected_mean_logp) - 1.0))        # SimPO

An expression is made of numbers, ``+ - * /``, ``**`` with a number, comparisons (1 where they hold, else 0),
the names of :data:`VARIABLES` and the calls of :data:`FUNCTIONS`. ``mean`` and ``std`` are taken over the
pairs of the optimizer step.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError, nearest
from prefero.objectives.contrasts import Comparisons, cell
from prefero.objectives.links import OfStep, capped
from prefero.objectives.quantities import Length, Logp, Quantity, log_ratio


class Function(NamedTuple):
    """How many arguments a function takes, its meaning, and what it is; None if it reads the whole step."""

    arguments: int
    meaning: str
    of: Callable[..., Tensor] | None = None


LONGEST, MOST_PARTS, DEEPEST, STEEPEST = 600, 120, 60, 4.0
"""Of an expression: characters, parts, parts inside one another, and the largest exponent."""

MEASURES: Mapping[str, Quantity] = {
    "logp": Logp().sum(),
    "mean_logp": Logp().mean(),
    "length": Length(),
    "ratio": log_ratio().sum(),
}
"""What a variable such as ``chosen_logp`` is of the response that it names."""

VARIABLES: Mapping[str, str] = {
    "z": "β times the margin of the two log-ratios: DPO's",
    "beta": "β",
    "chosen_ratio": "log π(y_w) − log π_ref(y_w), sums over tokens",
    "rejected_ratio": "log π(y_l) − log π_ref(y_l), sums over tokens",
    "chosen_logp": "log π(y_w), the sum over tokens",
    "rejected_logp": "log π(y_l), the sum over tokens",
    "chosen_mean_logp": "log π(y_w) per token",
    "rejected_mean_logp": "log π(y_l) per token",
    "chosen_length": "tokens of y_w",
    "rejected_length": "tokens of y_l",
}
FUNCTIONS: Mapping[str, Function] = {
    "sigmoid": Function(1, "1/(1 + exp(−x))", torch.sigmoid),
    "softplus": Function(1, "log(1 + exp(x))", lambda x: -F.logsigmoid(-x)),
    "logsigmoid": Function(1, "−softplus(−x)", F.logsigmoid),
    "exp": Function(1, "the exponential, held where it would overflow", lambda x: capped(x).exp()),
    "log": Function(
        1, "the natural logarithm, held above 0", lambda x: x.clamp(min=torch.finfo(x.dtype).tiny).log()
    ),
    "sqrt": Function(
        1, "the square root, held above 0", lambda x: x.clamp(min=torch.finfo(x.dtype).tiny).sqrt()
    ),
    "tanh": Function(1, "the hyperbolic tangent", torch.tanh),
    "relu": Function(1, "max(0, x)", F.relu),
    "abs": Function(1, "|x|", torch.abs),
    "square": Function(1, "x²", torch.square),
    "minimum": Function(2, "the smaller of two", torch.minimum),
    "maximum": Function(2, "the larger of two", torch.maximum),
    "where": Function(
        3,
        "the second where the first is not 0, else the third",
        lambda condition, one, other: torch.where(condition != 0, one, other),
    ),
    "detach": Function(1, "the value without its gradient", torch.detach),
    "mean": Function(1, "the mean over the pairs of the step"),
    "std": Function(1, "the standard deviation over the pairs of the step"),
}
OPERATORS: Mapping[type, Callable[[Tensor, Tensor], Tensor]] = {
    ast.Add: torch.add,
    ast.Sub: torch.sub,
    ast.Mult: torch.mul,
    ast.Div: torch.div,
}
RELATIONS: Mapping[type, Callable[[Tensor, Tensor], Tensor]] = {
    ast.Lt: torch.lt,
    ast.LtE: torch.le,
    ast.Gt: torch.gt,
    ast.GtE: torch.ge,
}


@dataclass(frozen=True)
class Expression:
    """An expression that was found to be one; ``text`` is its canonical form."""

    text: str
    tree: ast.expr = field(repr=False, compare=False)

    @property
    def names(self) -> set[str]:
        """The variables and functions that it is made of."""
        return {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}

    @property
    def reads_reference(self) -> bool:
        return bool(self.names & {"z", "chosen_ratio", "rejected_ratio"})

    @property
    def trains(self) -> bool:
        """Whether a gradient reaches the policy through it."""
        return _trains(self.tree)

    @property
    def reads_step(self) -> bool:
        """Whether the loss of a pair depends on the other pairs of the step."""
        return bool(self.names & {"mean", "std"})


def parse(text: str) -> Expression:
    """Read an expression.

    Raises :class:`~prefero.errors.PreferoError` for anything that is not one, saying which part.
    """
    if len(text) > LONGEST:
        raise PreferoError(f"the expression has {len(text)} characters; at most {LONGEST} are read")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        raise PreferoError(f"{text!r} is no expression: {reason}") from None
    if depth(tree) > DEEPEST:
        raise PreferoError(f"the expression has more than {DEEPEST} parts inside one another")
    parts = sum(1 for _ in walk(tree))
    if parts > MOST_PARTS:
        raise PreferoError(f"the expression has {parts} parts; at most {MOST_PARTS} are read")
    for node in walk(tree):
        check(node)
    return Expression(ast.unparse(tree), tree)


def depth(tree: ast.expr) -> int:
    """The most parts that stand inside one another, those that are no part of the language included."""
    level: list[ast.AST] = [tree]
    levels = 0
    while level:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        levels += 1
    return levels


def walk(node: ast.expr) -> Iterator[ast.expr]:
    """The parts of an expression, an exponent and the names of functions being no parts of their own."""
    yield node
    for child in operands(node):
        yield from walk(child)


def operands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp):
        return [node.left] if isinstance(node.op, ast.Pow) else [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    return list(node.args) if isinstance(node, ast.Call) else []


def _trains(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id == "z" or node.id.endswith(("_ratio", "_logp"))
    if isinstance(node, ast.Compare):
        return False
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "detach":
            return False
        if node.func.id == "where":
            return any(map(_trains, node.args[1:]))
    return any(map(_trains, operands(node)))


def check(node: ast.expr) -> None:
    """Raise :class:`~prefero.errors.PreferoError` for a part that no loss is made of."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as value) if abs(value) <= 1e6:  # neither is a NaN
            return
        case ast.Name(id=name):
            if name in VARIABLES:
                return
            raise PreferoError(
                f"nothing is called {name!r}{nearest(name, VARIABLES)} ({', '.join(VARIABLES)})"
            )
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return
        case ast.BinOp(op=ast.Pow(), right=right):
            if abs(exponent(right)) <= STEEPEST:
                return
        case ast.BinOp(op=op) if type(op) in OPERATORS:
            return
        case ast.Compare(ops=[op]) if type(op) in RELATIONS:
            return
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            if name not in FUNCTIONS:
                offered = ", ".join(FUNCTIONS)
                raise PreferoError(f"no function is called {name!r}{nearest(name, FUNCTIONS)} ({offered})")
            wanted = FUNCTIONS[name].arguments
            if len(args) != wanted:
                raise PreferoError(f"{name} takes {wanted} argument{'s' * (wanted > 1)}, not {len(args)}")
            if not any(isinstance(one, ast.Starred) for one in args):
                return
    raise PreferoError(f"{ast.unparse(node)!r} is not part of the language of losses")


def exponent(node: ast.expr) -> float:
    """The number behind ``**``; infinite for anything else."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -exponent(operand)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value) if abs(value) <= STEEPEST else math.inf  # float fails on 400 digits
    return math.inf


class Written(OfStep):
    """The link that an expression describes; ``z`` are the margins, less their target."""

    def __init__(self, expression: Expression, beta: float) -> None:
        super().__init__()
        self.expression, self.beta = expression, beta
        self.whole_step = expression.reads_step

    def forward(self, margins: Tensor, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        value = self.value(self.expression.tree, margins, comparisons)
        return torch.broadcast_to(value, margins.shape)

    def value(self, node: ast.expr, margins: Tensor, comparisons: Comparisons) -> Tensor:
        values = [self.value(child, margins, comparisons) for child in operands(node)]
        match node:
            case ast.Constant(value=int() | float() as number):
                return margins.new_tensor(float(number))
            case ast.Name(id=name):
                return self.variable(name, margins, comparisons)
            case ast.UnaryOp(op=op):
                return -values[0] if isinstance(op, ast.USub) else values[0]
            case ast.BinOp(op=ast.Pow(), right=right):
                return values[0] ** exponent(right)
            case ast.BinOp(op=op):
                return OPERATORS[type(op)](*values)
            case ast.Compare(ops=[op]):
                return RELATIONS[type(op)](*values).to(margins.dtype)
            case ast.Call(func=ast.Name(id="mean")):
                return self.mean(values[0].expand_as(margins), comparisons.mask)
            case ast.Call(func=ast.Name(id="std")):
                return self.deviation(values[0].expand_as(margins), comparisons.mask)
            case ast.Call(func=ast.Name(id=name)) if (of := FUNCTIONS[name].of) is not None:
                return of(*values)
        raise TypeError(f"{ast.unparse(node)} was let through")

    def variable(self, name: str, margins: Tensor, comparisons: Comparisons) -> Tensor:
        if name == "z":
            return margins
        if name == "beta":
            return margins.new_tensor(self.beta)
        role, _, measure = name.partition("_")
        return cell(MEASURES[measure], comparisons.batch, role)
