"""``prefero inspect``: checks of preference data before training, with or without the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.doctor.inspection import Inspection as Inspection, inspect as inspect

__getattr__, __dir__, __all__ = lazily(__name__)
