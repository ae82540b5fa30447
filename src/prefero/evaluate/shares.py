"""Shares over groups of records: how often something happened, in all and by topic, style, source."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Interval, wilson


@dataclass(frozen=True, slots=True)
class Share:
    """``value`` of ``count`` records, with Wilson's interval."""

    value: float
    interval: Interval
    count: int


def share(happened: Sequence[bool], confidence: float = 0.95) -> Share:
    """The share of the records in which it happened: of attacks that succeeded (attack success rate), of
    harmless requests that were refused.

    Raises:
        PreferoError: there are no records.
    """
    if not happened:
        raise PreferoError("a share needs at least one record; got none.")
    value = sum(map(bool, happened)) / len(happened)
    return Share(value, wilson(value, len(happened), confidence), len(happened))


def shares_by(
    group: Sequence[Hashable], happened: Sequence[bool], confidence: float = 0.95
) -> dict[Hashable, Share]:
    """The share in each group, in the order in which groups first occur. Weighted by their counts they give
    the share of all."""
    members: dict[Hashable, list[bool]] = {}
    for one, did in zip(group, happened, strict=True):
        members.setdefault(one, []).append(did)
    return {one: share(of, confidence) for one, of in members.items()}
