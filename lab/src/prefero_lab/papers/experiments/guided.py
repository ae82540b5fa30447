"""The experiment on text worlds with a guide: the reference of a run from the start model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefero_lab.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from torch import nn

    from prefero_lab.papers.paper import Trained


@dataclass(frozen=True)
class Guided(TextExperiment):
    """A :class:`~prefero_lab.papers.text.TextExperiment` where an arm may have a ``guide``: settings of a run
    on the same pairs that makes the reference. The arm's own run starts where all arms do."""

    def train(self, made: Made, settings: Mapping[str, Any], seed: int) -> Trained[nn.Module]:
        from tempfile import TemporaryDirectory

        own = dict(settings)
        guide = own.pop("guide", None)
        if guide is None:
            return super().train(made, own, seed)
        with TemporaryDirectory(prefix="prefero-") as folder:
            first: Any = super().train(made, guide, seed).model
            first.save_pretrained(folder)
            made.start.tokenizer.save_pretrained(folder)
            return super().train(made, {**own, "reference": folder}, seed)
