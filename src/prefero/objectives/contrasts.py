"""Contrasts: which rewards meet in one comparison.

A contrast turns a quantity into margins ``[row comparison]`` and a mask of the comparisons that exist. A row
is an example, except where a contrast says otherwise. Responses that an example lacks (a list shorter than
the batch's longest) take part in no comparison, and neither their values nor NaN in their columns reach
another response's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.quantities import Column, Quantity, per_response, present

Margins = tuple[Float[Tensor, "row comparison"], Bool[Tensor, "row comparison"]]
Sides = tuple[Float[Tensor, "row comparison"], Float[Tensor, "row comparison"]]


@dataclass(frozen=True, slots=True)
class Comparisons:
    """What the slots of a :class:`~prefero.objectives.compare.Compare` see: the margins, which of them exist,
    and any other quantity on the same contrast. ``margins`` are 0 where ``mask`` is False."""

    batch: PreferenceBatch
    contrast: Contrast
    margins: Float[Tensor, "row comparison"]
    mask: Bool[Tensor, "row comparison"]

    def gap(self, quantity: Quantity) -> Float[Tensor, "row comparison"]:
        """The quantity's own margins."""
        values, mask = self.contrast(quantity, self.batch)
        return torch.where(mask, values, 0)

    def total(self, quantity: Quantity) -> Float[Tensor, "row comparison"]:
        """The quantity added up over the responses of each comparison."""
        return torch.where(self.mask, self.contrast.total(quantity, self.batch), 0)


PerComparison = Callable[[Comparisons], Float[Tensor, "row comparison"]]
"""A number for every comparison: a target, scale or weight."""


class GapOf(nn.Module):
    """A quantity's own margins, as a slot. A module, so that what the quantity learns stays part of the
    objective."""

    def __init__(self, quantity: Quantity) -> None:
        super().__init__()
        self.quantity = quantity

    def forward(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return comparisons.gap(self.quantity)


class TotalOf(GapOf):
    """A quantity added up over the responses of each comparison, as a slot."""

    def forward(self, comparisons: Comparisons) -> Float[Tensor, "row comparison"]:
        return comparisons.total(self.quantity)


class Contrast(nn.Module):
    """Which responses meet; ``whole_step`` if responses of different examples do."""

    whole_step = False

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        raise NotImplementedError

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "row comparison"]:
        raise PreferoError(
            f"{type(self).__name__} compares whole sets of responses, so no weight belongs to a pair of them"
        )

    def __sub__(self, other: Contrast) -> Contrast:
        return Difference(self, other)


class Pairwise(Contrast):
    """A contrast whose every comparison is one response minus another."""

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        """The values of the better and of the worse responses."""
        raise NotImplementedError

    def exists(self, batch: PreferenceBatch) -> Bool[Tensor, "row comparison"]:
        raise NotImplementedError

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        better, worse = self.sides(reward, batch)
        return better - worse, self.exists(batch)

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "row comparison"]:
        better, worse = self.sides(quantity, batch)
        return better + worse


def located(batch: PreferenceBatch, address: str) -> tuple[PreferenceBatch, int]:
    """The batch or view, and the place on its response axis, of ``"chosen"`` or ``"chosen@corrupted"``."""
    role, _, view = address.partition("@")
    at = batch.views[view] if view else batch
    return at, at.roles.index(role)


def cell(quantity: Quantity, batch: PreferenceBatch, address: str) -> Float[Tensor, "example 1"]:
    """The quantity of the responses at an address."""
    at, place = located(batch, address)
    return per_response(quantity, at)[:, place, None]


def cell_exists(batch: PreferenceBatch, address: str) -> Bool[Tensor, "example 1"]:
    at, place = located(batch, address)
    return present(at)[:, place, None]


class Pair(Pairwise):
    """One response against another, by their addresses: one comparison an example."""

    def __init__(self, better: str = "chosen", worse: str = "rejected") -> None:
        super().__init__()
        self.better, self.worse = better, worse

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        return cell(quantity, batch, self.better), cell(quantity, batch, self.worse)

    def exists(self, batch: PreferenceBatch) -> Bool[Tensor, "example 1"]:
        return cell_exists(batch, self.better) & cell_exists(batch, self.worse)


class Each(Contrast):
    """Every response on its own, or those at one address; multiplied by ``sign`` or by a column of ±1."""

    def __init__(self, address: str | None = None, *, sign: float = 1.0, label: str | None = None) -> None:
        super().__init__()
        self.address, self.sign = address, sign
        self.label = Column(label) if label else None

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        values = self.total(reward, batch) * self.sign
        if self.label is not None:
            values = values * self.total(self.label, batch)
        return values, cell_exists(batch, self.address) if self.address else present(batch)

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "example comparison"]:
        return cell(quantity, batch, self.address) if self.address else per_response(quantity, batch)


class EachLabelled(Contrast):
    """The responses that a column of ±1 calls desirable (``sign`` = 1) or undesirable (−1), each alone."""

    def __init__(self, sign: int, label: str = "label") -> None:
        super().__init__()
        self.sign, self.label = sign, Column(label)

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        labelled = self.sign * per_response(self.label, batch) > 0
        return self.total(reward, batch), labelled & present(batch)

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        return per_response(quantity, batch)


class EachOf(Contrast):
    """The responses at several addresses, each on its own: one comparison an address."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self.addresses = addresses

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        exists = [cell_exists(batch, address) for address in self.addresses]
        return self.total(reward, batch), torch.cat(exists, dim=1)

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "example comparison"]:
        return torch.cat([cell(quantity, batch, address) for address in self.addresses], dim=1)


class Difference(Contrast):
    """A margin of margins."""

    def __init__(self, first: Contrast, second: Contrast) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        (first, mask), (second, other) = self.first(reward, batch), self.second(reward, batch)
        return first - second, mask & other

    def total(self, quantity: Quantity, batch: PreferenceBatch) -> Float[Tensor, "row comparison"]:
        return self.first.total(quantity, batch) + self.second.total(quantity, batch)


class EveryPair(Pairwise):
    """All ordered pairs of a list, better against worse by a column; equal values do not meet."""

    def __init__(self, by: str = "score") -> None:
        super().__init__()
        self.by = Column(by)

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        values = per_response(quantity, batch)
        count = values.shape[1]
        return values.repeat_interleave(count, dim=1), values.repeat(1, count)

    def exists(self, batch: PreferenceBatch) -> Bool[Tensor, "example comparison"]:
        by, there = per_response(self.by, batch), present(batch)
        better = by[:, :, None] > by[:, None, :]
        return (better & there[:, :, None] & there[:, None, :]).flatten(1)


class Sets(Contrast):
    """The accepted responses of a list against the others: log-sum-exp minus log-sum-exp, one comparison an
    example; none where a side is empty. With a logistic link: −log of the accepted share of the softmax."""

    def __init__(self, accepted: Quantity) -> None:
        super().__init__()
        self.accepted = accepted

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        values, there = per_response(reward, batch), present(batch)
        accepted = per_response(self.accepted, batch) > 0
        good, good_exists = masked_logsumexp(values, accepted & there)
        bad, bad_exists = masked_logsumexp(values, ~accepted & there)
        return (good - bad)[:, None], (good_exists & bad_exists)[:, None]


class Ranking(Contrast):
    """Plackett–Luce: every response against all that are ranked after it, by a column that is 0 for the best;
    responses of equal rank do not meet."""

    def __init__(self, by: str = "rank") -> None:
        super().__init__()
        self.by = Column(by)

    def forward(self, reward: Quantity, batch: PreferenceBatch) -> Margins:
        values, there, rank = per_response(reward, batch), present(batch), per_response(self.by, batch)
        after = (rank[:, None, :] > rank[:, :, None]) & there[:, None, :] & there[:, :, None]
        rest, exists = masked_logsumexp(values[:, None, :].expand_as(after), after)
        return values - rest, exists


class AcrossBatch(Pairwise):
    """Responses of different examples meet: row i and comparison i belong to the same example."""

    whole_step = True

    def rows(
        self, per_example: Float[Tensor, "example *rest"], batch: PreferenceBatch
    ) -> Float[Tensor, "row *rest"]:
        """What belongs to an example, once for each of its rows."""
        raise NotImplementedError


class Across(AcrossBatch):
    """Every chosen response of the batch against every rejected one; a row is an example."""

    def __init__(self, better: str = "chosen", worse: str = "rejected") -> None:
        super().__init__()
        self.better, self.worse = better, worse

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        better, worse = cell(quantity, batch, self.better), cell(quantity, batch, self.worse)
        return torch.broadcast_to(better, (len(better),) * 2), torch.broadcast_to(worse.T, (len(worse),) * 2)

    def exists(self, batch: PreferenceBatch) -> Bool[Tensor, "row comparison"]:
        return cell_exists(batch, self.better) & cell_exists(batch, self.worse).T

    def rows(
        self, per_example: Float[Tensor, "example *rest"], batch: PreferenceBatch
    ) -> Float[Tensor, "row *rest"]:
        return per_example


class AcrossLabels(AcrossBatch):
    """Every desirable response of the batch against every undesirable one, by a column of ±1; rows are the
    responses of all examples, one after the other."""

    def __init__(self, label: str = "label") -> None:
        super().__init__()
        self.label = Column(label)

    def sides(self, quantity: Quantity, batch: PreferenceBatch) -> Sides:
        values = per_response(quantity, batch).flatten()
        square = (len(values),) * 2
        return torch.broadcast_to(values[:, None], square), torch.broadcast_to(values, square)

    def exists(self, batch: PreferenceBatch) -> Bool[Tensor, "row comparison"]:
        there, label = present(batch).flatten(), per_response(self.label, batch).flatten()
        return ((label > 0) & there)[:, None] & ((label < 0) & there)[None, :]

    def rows(
        self, per_example: Float[Tensor, "example *rest"], batch: PreferenceBatch
    ) -> Float[Tensor, "row *rest"]:
        return per_example.repeat_interleave(batch.mask.shape[1], dim=0)


def masked_logsumexp(
    values: Float[Tensor, "*rows response"], keep: Bool[Tensor, "*rows response"]
) -> tuple[Float[Tensor, "*rows"], Bool[Tensor, "*rows"]]:
    """Log-sum-exp of the kept values of each row, or 0 without a gradient; and whether a row keeps any."""
    kept_any = keep.any(-1)
    values = torch.where(keep, values, -torch.inf)
    # logsumexp of nothing has a NaN gradient, which a mask on its result would not stop
    values = torch.where(kept_any[..., None], values, 0)
    return torch.where(kept_any, values.logsumexp(-1), 0), kept_any
