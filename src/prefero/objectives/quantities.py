"""Quantities: expressions over a batch that give one number per response, or per token.

A quantity adds, multiplies, maps, detaches and moves to a view, so that an objective reads like the equation
of its paper::

    reward = beta * (Logp("policy") - Logp("reference")).sum()

Nothing is detached unless ``.detach()`` is written. The sum and the mean over tokens are different methods,
so one of them is always written.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefero.data.schema import SCHEMA
from prefero.errors import PreferoError, nearest
from prefero.objectives.batch import PreferenceBatch, Signal


class Quantity(nn.Module):
    """A function of a :class:`~prefero.objectives.batch.PreferenceBatch`.

    It gives ``[example response]`` or ``[example response token]``, or something that broadcasts to one of
    them. A component whose value for one example depends on the other examples of the batch sets
    ``whole_step``: its objective is exact only on a whole optimizer step.
    """

    whole_step = False

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "..."]:
        raise NotImplementedError

    def __add__(self, other: Quantity | float) -> Quantity:
        return Map(torch.add, self, quantity(other))

    def __sub__(self, other: Quantity | float) -> Quantity:
        return Map(torch.sub, self, quantity(other))

    def __mul__(self, other: Quantity | float) -> Quantity:
        return Map(torch.mul, self, quantity(other))

    def __truediv__(self, other: Quantity | float) -> Quantity:
        return Map(torch.div, self, quantity(other))

    def __rsub__(self, other: float) -> Quantity:
        return quantity(other) - self

    def __neg__(self) -> Quantity:
        return self.map(torch.neg)

    __radd__ = __add__
    __rmul__ = __mul__

    def map(self, function: Callable[[Tensor], Tensor]) -> Quantity:
        """The function of the quantity, element by element."""
        return Map(function, self)

    def detach(self) -> Quantity:
        """The same values without a gradient: the papers' sg(·)."""
        return self.map(Tensor.detach)

    def at(self, view: str) -> Quantity:
        """The quantity of the same examples in another view of the batch."""
        return At(self, view)

    def per_token(self) -> Quantity:
        """A number per response, or per example, at every token, so that it can meet numbers per token."""
        return self.map(lambda values: values[..., None])

    def sum(self) -> Quantity:
        """Sum over the tokens of each response."""
        return TokenSum(self)

    def mean(self) -> Quantity:
        """Mean over the tokens of each response, by its own length."""
        return TokenSum(self) / Length().map(lambda length: length.clamp(min=1))


def quantity(value: Quantity | float) -> Quantity:
    """A quantity as it is; a number as a constant one."""
    return value if isinstance(value, Quantity) else Constant(value)


class Constant(Quantity):
    """The same number for every response."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, ""]:
        return batch.lengths.new_tensor(self.value)


class Column(Quantity):
    """An annotation of the data, named as in :data:`prefero.data.schema.SCHEMA`, as floating-point numbers.

    A column with one number an example gives ``[example 1]``; what stands at absent responses and tokens is
    not read. Raises :class:`~prefero.errors.PreferoError` for a name that the schema does not have.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        if name not in SCHEMA:
            raise PreferoError(f"no data column is called {name!r}{nearest(name, SCHEMA)}")
        self.name, self.axes = name, SCHEMA[name].axes

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "..."]:
        values = batch.columns[self.name].to(batch.lengths.dtype)
        if self.axes == "example":
            return values[:, None]
        if self.axes == "example response":
            return torch.where(present(batch), values, 0)
        return torch.where(batch.mask, values, 0) if self.axes == "example response token" else values


class Length(Quantity):
    """Number of scored tokens of each response."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        return batch.lengths


class Position(Quantity):
    """Place of each scored token in its response, counted from 1."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        return batch.mask.cumsum(-1).to(batch.lengths.dtype)


class Logp(Quantity):
    """Log-probability of every response token under a model."""

    def __init__(self, model: str = "policy") -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        return batch.models[self.model].logps


class Measured(Quantity):
    """A signal that the model's adapter measures on request; 0 where a response or a token is absent."""

    def __init__(self, signal: Signal, model: str = "policy") -> None:
        super().__init__()
        self.signal, self.model = signal, model

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "..."]:
        values = batch.models[self.model].signals[self.signal]
        there = batch.mask if self.signal.axes == "example response token" else present(batch)
        return torch.where(there[(...,) + (None,) * (values.dim() - there.dim())], values, 0)


class Map(Quantity):
    """A function of quantities."""

    def __init__(self, function: Callable[..., Tensor], *arguments: Quantity) -> None:
        super().__init__()
        self.function = function
        self.arguments = nn.ModuleList(arguments)

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "..."]:
        return self.function(*(argument(batch) for argument in self.arguments))


class At(Quantity):
    """A quantity in another view of the batch."""

    def __init__(self, of: Quantity, view: str) -> None:
        super().__init__()
        self.of, self.view = of, view

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "..."]:
        return self.of(batch.views[self.view])


class Unary(Quantity):
    """A quantity made of one other."""

    def __init__(self, of: Quantity) -> None:
        super().__init__()
        self.of = of


class TokenSum(Unary):
    """The sum over the scored tokens of each response; what stands at other tokens is not read."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        return torch.where(batch.mask, self.of(batch), 0).sum(-1)


class LastToken(Unary):
    """What a quantity is at the last scored token of each response; 0 for a response without any."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        return torch.where(is_last_token(batch), self.of(batch), 0).sum(-1)


class AtLastToken(Unary):
    """A number per response at the last scored token of each, 0 at the others."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        return torch.where(is_last_token(batch), self.of(batch)[..., None], 0)


class Sides(Quantity):
    """Responses measured differently by role; 0 for the roles that are not named."""

    def __init__(self, **by_role: Quantity | float) -> None:
        super().__init__()
        self.by_role = nn.ModuleDict({role: quantity(side) for role, side in by_role.items()})

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "..."]:
        sides = {role: side(batch) for role, side in self.by_role.items()}
        axes = max(side.dim() for side in sides.values())
        if any(0 < side.dim() < axes for side in sides.values()):
            raise ValueError(
                "the sides mix numbers per response with numbers per token: write .sum() or .mean()"
            )
        shape = batch.mask.shape[: max(axes, 2)]
        result = batch.lengths.new_zeros(shape)
        for role, side in sides.items():
            here = torch.zeros(shape[1], dtype=torch.bool, device=result.device)
            here[batch.roles.index(role)] = True
            here = here.view(1, -1, *[1] * (len(shape) - 2))
            result = torch.where(here, side, result)
        return result


def present(batch: PreferenceBatch) -> Tensor:
    """Bool ``[example response]``: whether the example has that response; lists are padded to the longest."""
    return batch.mask.any(-1)


def is_last_token(batch: PreferenceBatch) -> Tensor:
    """Bool ``[example response token]``: the last scored token of each response."""
    return batch.mask & (batch.mask.cumsum(-1) == batch.mask.sum(-1, keepdim=True))


def per_response(of: Quantity, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
    """The quantity's value, refused if it still has a number for every token."""
    value = of(batch)
    if value.dim() > 2:
        raise ValueError("one number per response is needed here, not one per token: write .sum() or .mean()")
    return torch.broadcast_to(value, batch.mask.shape[:2])


def log_odds(logp: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log p/(1 − p) of a log-probability, which is held where p cannot be told from 1."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    return logp - log_complement(logp)


def log_complement(logp: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """log(1 − p) of a log-probability, which is held where p cannot be told from 1."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # either form loses digits where the other one has them
    return torch.where(logp > -0.5, (-logp.expm1()).log(), (-logp.exp()).log1p())


def log_ratio(model: str = "policy", against: str = "reference") -> Quantity:
    """log π(token) − log π_against(token), per token."""
    return Logp(model) - Logp(against)


class Linear(Quantity):
    """From ``start`` at the first optimizer step in a straight line to ``end`` after the last."""

    def __init__(self, start: float, end: float) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, ""]:
        return batch.lengths.new_tensor(self.start + (self.end - self.start) * batch.progress)
