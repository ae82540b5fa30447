"""Sequences drawn from discrete diffusion models, and a masked language model that is told the time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from prefero.models.discrete_diffusion.noise import Masking
from prefero.models.discrete_diffusion.scoring import DiscreteDiffusionAdapter, logits
from prefero.models.head import wide


@torch.no_grad()
def sample(
    model: Callable[..., Any],
    adapter: DiscreteDiffusionAdapter,
    given: Int[Tensor, "row position"],
    generator: torch.Generator,
    *,
    steps: int,
    generated: Bool[Tensor, "row position"] | None = None,
    there: Bool[Tensor, "row position"] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Int[Tensor, "row position"]:
    """Sequences from a model: from noise to data in ``steps`` equal steps of time.

    In each, a position jumps with the probability that the schedule gives, positions independently of each
    other: exact in the limit of many steps (tau-leaping). ``given`` shows the shape, and the tokens where
    ``generated`` is False (all are generated, if None); positions that are not ``there`` are padding. The
    generator is one of the device of ``given``.
    """
    noise, schedule = adapter.noise, adapter.schedule
    present = torch.ones_like(given, dtype=torch.bool) if there is None else there
    made = present if generated is None else present & generated
    states = torch.where(made, noise.like(given, generator), given)
    for step in range(steps):
        now, then = (torch.tensor(at / steps, device=given.device) for at in (step, step + 1))
        told = {**(conditions or {}), **({"time": now.expand(len(given))} if adapter.timed else {})}
        probabilities = noise.logps(wide(logits(model, states, present, told))).exp()
        tokens = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator).view_as(states)
        share = (schedule.kept(then) - schedule.kept(now)) / (1 - schedule.kept(now))
        if step + 1 == steps:
            share = torch.ones_like(share)
        jumps = torch.rand(states.shape, generator=generator, device=given.device) < share
        states = torch.where(jumps & made & noise.moves(states), tokens, states)
    return states


@torch.no_grad()
def unmask(
    model: Callable[..., Any],
    noise: Masking,
    given: Int[Tensor, "row position"],
    generator: torch.Generator,
    *,
    generated: Bool[Tensor, "row position"] | None = None,
    there: Bool[Tensor, "row position"] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Int[Tensor, "row position"]:
    """Sequences from a model under masking noise, exactly: one position after another, in random order.

    No two positions of the chain jump at once, and a model that is not told the time does not care when they
    do, so this is what :func:`sample` comes to with infinitely many steps, whatever the schedule.
    """
    present = torch.ones_like(given, dtype=torch.bool) if there is None else there
    made = present if generated is None else present & generated
    states = torch.where(made, noise.like(given, generator), given)
    turn = torch.where(made, torch.rand(given.shape, generator=generator, device=given.device), 2)
    order = turn.argsort(-1)
    for step in range(int(made.sum(-1).max())):
        place = order[:, step, None]
        found = logits(model, states, present, conditions or {})
        at_place = wide(found.gather(1, place[..., None].expand(-1, -1, found.shape[-1]))[:, 0])
        token = torch.multinomial(noise.logps(at_place).exp(), 1, generator=generator)
        states = states.scatter(1, place, torch.where(made.gather(1, place), token, states.gather(1, place)))
    return states


class TimedMaskedConfig(PreTrainedConfig):
    """``inner`` is the configuration of the model that is told the time, which it is by ``frequencies``
    waves."""

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


AutoConfig.register(TimedMaskedConfig.model_type, TimedMaskedConfig)
AutoModelForMaskedLM.register(TimedMaskedConfig, TimedForMaskedLM)
