"""Responses of models, as records with their tokens and probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.generate.sampling import Sample as Sample, sample as sample

__getattr__, __dir__, __all__ = lazily(__name__)
