"""A calculator for expressions that a model writes: the four operations, read and never executed."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

OPERATIONS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

LONGEST = 200
"""Characters of an expression."""


def calculated(expression: str) -> float | None:
    """The value of an arithmetic expression of numbers, + − * / and brackets; None for anything else, and
    where there is no finite value."""
    if len(expression) > LONGEST:
        return None
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
    return value if math.isfinite(value) else None


def forced_text(expression: str) -> str | None:
    """What is to stand behind ``expression =``: a whole number where the value is within 1e-4 of its whole
    part, else two decimals; None, to leave the model free, for what cannot be calculated or is negative.

    Wang et al., 2024, arXiv 2407.18248, force these tokens in rationales while they sample.
    """
    value = calculated(expression)
    if value is None or value < 0:
        return None
    return str(int(value)) if value - int(value) < 1e-4 else str(round(value, 2))


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=bool()):
            raise ValueError("no number")
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left, operation, right) if type(operation) in OPERATIONS:
            return OPERATIONS[type(operation)](_value(left), _value(right))
        case ast.UnaryOp(ast.USub(), operand):
            return -_value(operand)
        case ast.UnaryOp(ast.UAdd(), operand):
            return _value(operand)
    raise ValueError("no arithmetic")
