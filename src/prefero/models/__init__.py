"""Models that score responses: one folder for each kind, and what the kinds share.

Importing the package registers this library's own architectures with transformers, so that its ``Auto``
classes load them from any folder. Their configurations name their kind themselves, as ``prefero_kind``.
"""

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from prefero.models.discrete_diffusion.timed import TimedForMaskedLM, TimedMaskedConfig
from prefero.models.tabular.policy import TabularConfig, TabularPolicy

AutoConfig.register(TabularConfig.model_type, TabularConfig)
AutoModel.register(TabularConfig, TabularPolicy)
AutoConfig.register(TimedMaskedConfig.model_type, TimedMaskedConfig)
AutoModelForMaskedLM.register(TimedMaskedConfig, TimedForMaskedLM)
