"""Models that score responses: one folder for each kind, and what the kinds share.

Importing the package registers this library's own architectures with transformers' ``Auto`` classes. Their
configurations name their kind themselves, as ``prefero_kind``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from prefero.lazy import lazily
from prefero.models.discrete_diffusion.timed import TimedForMaskedLM, TimedMaskedConfig
from prefero.models.tabular.policy import TabularConfig, TabularPolicy

if TYPE_CHECKING:
    from prefero.models.diffusion.kind import Diffusion as Diffusion
    from prefero.models.kind import (
        Batching as Batching,
        Dataset as Dataset,
        Inputs as Inputs,
        Item as Item,
        Kind as Kind,
        PackedBatching as PackedBatching,
        PaddedBatching as PaddedBatching,
        Reading as Reading,
    )
    from prefero.models.loading import Lora as Lora, ModelSource as ModelSource, kind_of as kind_of

__getattr__, __dir__, _public = lazily(__name__)

__all__ = ["TabularConfig", "TabularPolicy", "TimedForMaskedLM", "TimedMaskedConfig", *_public]

AutoConfig.register(TabularConfig.model_type, TabularConfig)
AutoModel.register(TabularConfig, TabularPolicy)
AutoConfig.register(TimedMaskedConfig.model_type, TimedMaskedConfig)
AutoModelForMaskedLM.register(TimedMaskedConfig, TimedForMaskedLM)
