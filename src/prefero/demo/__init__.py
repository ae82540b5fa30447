"""The demonstration: the world of written reviews, and the whole path from pairs to a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.demo.start import StartModel as StartModel
    from prefero.demo.text import HeldOut as HeldOut, Outcome as Outcome, TextWorld as TextWorld

__getattr__, __dir__, __all__ = lazily(__name__)
