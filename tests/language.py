"""The kind of model that most tests are about, where only its collation and scoring matter."""

from __future__ import annotations

from prefero.models.causal.scoring import Language
from prefero.models.loading import ModelSource

LANGUAGE = Language(None, None, ModelSource("a test's"))
