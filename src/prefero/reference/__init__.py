"""Models that the policy is measured against: frozen, switched off, moving, trained, or cached on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.reference.cache import CachedLogps as CachedLogps, model_fingerprint as model_fingerprint
    from prefero.reference.providers import Provider as Provider, ReferenceSpec as ReferenceSpec

__getattr__, __dir__, __all__ = lazily(__name__)
