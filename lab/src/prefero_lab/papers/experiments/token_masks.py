"""The experiment on text worlds, where an objective learns which tokens of a response count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero.objectives.heads import Head
    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Masked:
    """A policy, and the mask that its objective came to have; without one, all tokens count 1."""

    policy: nn.Module
    mask: Head | None = None


@dataclass(frozen=True)
class TokenMasks(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` on pairs that differ in their first word alone,
    which also measures the mask of an objective that learns one (the first, if it learns several).

    Of as many training pairs as prompts, one number each, the mean of its two responses: ``on_first``, the
    share of the whole mask that is on the first token, over what it would be if all tokens counted alike;
    ``zeros``, the share of tokens whose mask is 0; ``mask``, its mean.
    """

    world: str = "safety"
    pairs: int = 512
    epochs: float = 5.0
    prompts: int = 256

    def start(self, made: Made) -> Masked:  # type: ignore[override]
        return Masked(super().start(made))

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[Masked]:  # type: ignore[override]
        from prefero.objectives import from_config
        from prefero.objectives.heads import Head
        from prefero_lab.papers.paper import Trained

        objective = from_config(settings["objective"])
        found = super().train(made, {**settings, "objective": objective}, seed)
        heads = [module for module in objective.modules() if isinstance(module, Head)]
        return Trained(Masked(found.model, heads[0] if heads else None), found.curves)

    def measure(self, made: Made, model: Masked, seed: int) -> Mapping[str, Sequence[float]]:  # type: ignore[override]
        from prefero.demo.start import one_thread

        found = super().measure(made, model.policy, seed)
        with one_thread():
            return {**found, **self._mask(made, model.mask)}

    def _mask(self, made: Made, mask: Head | None) -> dict[str, list[float]]:
        import torch

        from prefero.models.causal.scoring import Language
        from prefero.models.kind import Reading
        from prefero.models.loading import ModelSource
        from prefero.models.scoring import scored_rows
        from prefero.objectives import method
        from prefero.objectives.batch import PreferenceBatch
        from prefero.objectives.needs import dry_run
        from prefero.objectives.signals import TOKEN_STATE, TOKEN_STATES

        language = Language.of(ModelSource(str(made.start.folder)))
        examples = language.read(made.rows[: self.prompts], dry_run(method("dpo")), Reading())[:]
        found: dict[int, list[float]] = {}
        signals = frozenset({TOKEN_STATE, TOKEN_STATES})
        for row, scored in scored_rows(made.start.model, examples, signals):
            there = scored.mask
            with torch.no_grad():
                sizes = mask(PreferenceBatch({"policy": scored, "reference": scored})) if mask else 1.0
            sizes = (there * sizes).double()
            total, count = sizes.sum(-1), there.sum(-1)
            on_first = (sizes[..., 0] * count / total).nan_to_num(0)
            zeros = ((sizes == 0) & there).sum(-1) / count
            means = torch.stack([on_first, zeros, total / count], -1).mean(1)
            found.update(zip(row, means.tolist(), strict=True))
        in_order = zip(*(found[i] for i in range(len(examples))), strict=True)
        return {
            name: list(values) for name, values in zip(("on_first", "zeros", "mask"), in_order, strict=True)
        }
