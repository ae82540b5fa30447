"""``prefero inspect``: what preference data and the model make of each other before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.doctor.inspection import Inspection as Inspection
    from prefero.doctor.inspection import inspect as inspect

__getattr__, __dir__, __all__ = lazily(__name__)
