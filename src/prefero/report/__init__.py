"""The report of a run or of a comparison: one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.report.page import render as render

__getattr__, __dir__, __all__ = lazily(__name__)
