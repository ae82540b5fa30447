"""What a layout of rows is: how it is recognised, and how a row of it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefero.data.examples import Example
from prefero.data.formats.fields import Fields


@dataclass(frozen=True, slots=True)
class Layout:
    """One way people lay out preference data.

    ``columns`` tells a reader which fields such a row has. ``matches`` is asked with a specimen: every field
    that the first rows have, with its first value that is not null.
    """

    name: str
    columns: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Fields], Example]
