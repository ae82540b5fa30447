"""A masked language model that is told the time, as models of uniform noise want it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput


class TimedMaskedConfig(PreTrainedConfig):
    """``inner`` is the configuration of the model that is told the time, by ``frequencies`` waves."""

    model_type = "prefero_timed_masked"
    prefero_kind = "discrete_diffusion"
    sub_configs: ClassVar[dict[str, type]] = {"inner": AutoConfig}

    def __init__(
        self, inner: PreTrainedConfig | dict[str, Any] | None = None, frequencies: int = 8, **settings: Any
    ) -> None:
        given = {"model_type": "bert"} if inner is None else inner
        self.inner = AutoConfig.for_model(**given) if isinstance(given, dict) else given
        self.frequencies = frequencies
        super().__init__(**settings)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """That of the inner model, which has the vocabulary and the positions."""
        return self.inner.get_text_config(*args, **kwargs)


class TimedForMaskedLM(PreTrainedModel):
    """A masked language model of transformers whose embeddings are shifted, by a learned function of the
    time. ::

        model = TimedForMaskedLM.of(BertForMaskedLM.from_pretrained(folder))
        model.save_pretrained(other)                      # AutoModelForMaskedLM reads it
    """

    config_class = TimedMaskedConfig
    config: TimedMaskedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: TimedMaskedConfig) -> None:
        super().__init__(config)
        width = config.inner.hidden_size
        self.model = AutoModelForMaskedLM.from_config(config.inner)
        self.shift = nn.Sequential(
            nn.Linear(2 * config.frequencies, width), nn.GELU(), nn.Linear(width, width)
        )
        self.post_init()

    @classmethod
    def of(cls, model: PreTrainedModel, frequencies: int = 8) -> TimedForMaskedLM:
        """A model that is to be told the time; it is the one that was given, not a copy."""
        timed = cls(TimedMaskedConfig(model.config, frequencies))
        timed.model = model
        nn.Module.to(timed, model.dtype)
        return timed

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.model.get_output_embeddings()

    def forward(
        self,
        input_ids: Int[Tensor, "row position"],
        attention_mask: Tensor | None = None,
        time: Float[Tensor, " row"] | None = None,
        **others: Any,
    ) -> MaskedLMOutput:
        """``time`` is from 0 (noise) to 1 (data), which it is if none is given."""
        at = torch.ones(len(input_ids), device=input_ids.device) if time is None else time
        waves = math.pi * torch.arange(1, self.config.frequencies + 1, device=at.device)
        phases = at.float()[:, None] * waves
        told = torch.cat((phases.sin(), phases.cos()), -1).to(next(self.shift.parameters()).dtype)
        embedded = self.get_input_embeddings()(input_ids) + self.shift(told)[:, None]
        return self.model(inputs_embeds=embedded, attention_mask=attention_mask, **others)
