"""The start-up check: a packing is used only after it gave the model's own numbers.

Two prompts with two responses each are scored as a forest and, by the model's untouched forward, as four
right-padded rows. A wrong mask is silent otherwise: the loss still falls.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prefero.data.images import image_ids
from prefero.data.packing import Forest, ImageBatch, pack
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.attention import PathRows
from prefero.models.causal.forward import (
    Adapted,
    ScoringPass,
    body,
    decoder,
    last_feed_forward,
    run_forest,
)
from prefero.models.causal.images import own_inputs
from prefero.models.causal.rope import LengthRope, apart
from prefero.models.kind import Packing, PackingChoice
from prefero.models.loading import evaluating

TOLERANCE = 1e-4
"""Largest difference of a log-probability, in nats, where the model's own noise is smaller."""

SHORT_WINDOW = 6
"""Windows and chunks are this short during the check, so that a wrong one shows on a short text."""

SHORT_ROPE = 12
"""Texts are long for rotary positions that depend on length from here on; the check has some of either."""

FAILURES = (ValueError, TypeError, RuntimeError, NotImplementedError, AttributeError, KeyError, IndexError)
"""Errors of a forward that is given something it does not take."""

TREE_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layer types whose rule holds along a path of a tree as it does along a sequence."""


def choose(
    model: PreTrainedModel, packing: PackingChoice, images: ImageBatch | None = None
) -> tuple[Adapted, str]:
    """The first way of scoring that agrees with the model's own forward, and why no faster one does. With
    ``images``, prompts show them. Raises :class:`PreferoError` when the named packing, or with ``"auto"``
    every packing, disagrees, and when the model's own forward does not take the images."""
    reasons = []
    # the tolerances are those of the weights' own precision, whatever a caller's autocast scores in
    with torch.autocast(model.device.type, enabled=False), _as_scored(model):
        try:
            check = _Check(model, images)
        except FAILURES as error:
            if images is None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise PreferoError(
                f"{type(model).__name__} cannot be scored: its own forward does not take images as the "
                f"processor makes them ({summary(error)}). Name the model's own processor"
            ) from error
        refusal = _refusal(model)
        for adapted in _ways(model, packing, images is not None):
            padded = adapted.packing == "padded"
            if refusal and not padded:
                reasons.append(refusal)
                continue
            reason = check(adapted)
            if reason is None:
                return adapted, "; ".join(dict.fromkeys(reasons)) if padded else ""
            if not adapted.trims:
                with_head = " with its own head" if adapted.own_head else ""
                reasons.append(f"{adapted.packing} packing{with_head}: {reason}")
    raise PreferoError(
        f"{type(model).__name__} cannot be scored: {'; '.join(dict.fromkeys(reasons))}"
        + ("" if packing == "auto" else f". Packing {packing!r} was asked for: 'auto' finds one that works")
    )


def _ways(model: PreTrainedModel, packing: PackingChoice, sees: bool) -> Iterator[Adapted]:
    """The ways to score a model in this packing, or in any; the cheaper ones first."""
    implementation = model.config._attn_implementation
    packings: list[Packing] = ["trees", "dense", "padded"]
    if packing != "auto":
        packings = [packing]
    elif implementation == "flex_attention":
        packings = ["flex", "padded"]
    elif implementation != "sdpa":
        packings = ["dense", "padded"]
    elif model.device.type == "cuda" and model._supports_flex_attn:
        packings = ["flex", "dense", "padded"]
    for candidate in packings:
        for blocks in (False, True) if sees and candidate in ("dense", "flex") else (False,):
            way = Adapted(candidate, blocks=blocks, sees=sees)
            if body(model) is not model:
                if last_feed_forward(decoder(model)) is not None:
                    yield replace(way, trims=True)
                yield way
            yield replace(way, own_head=True)


def _refusal(model: PreTrainedModel) -> str | None:
    """The reason why a model cannot run along a tree, where one is known without a forward."""
    config = model.config.get_text_config()
    implementation = model.config._attn_implementation
    foreign = set(getattr(config, "layer_types", None) or ()) - TREE_LAYERS
    if foreign:
        return f"its {', '.join(sorted(foreign))} layers read the row in order"
    if getattr(config, "alibi", False):
        return "its position bias (ALiBi) is built from places in the row"
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return "its forward takes no position ids"
    if implementation not in ("sdpa", "eager", "flex_attention"):
        return f"{implementation} takes no mask: load it with attn_implementation='sdpa'"
    return None


def summary(error: BaseException) -> str:
    """The name of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


class _Check:
    """A sample, the model's own numbers for it, and whether a way of scoring gives the same."""

    def __init__(self, model: PreTrainedModel, images: ImageBatch | None) -> None:
        self.model = model
        self.forest = apart(_sample(model, images), [model])
        self.rows = PathRows.of(self.forest)
        self.rope = LengthRope.of(model)
        self.expected = self._own(slice(None)) if self.rope is None else self._alone()
        self.tolerance: float | None = None

    def __call__(self, adapted: Adapted) -> str | None:
        """The reason why this way is not the model's own numbers; None where it is."""
        forest = self.forest
        try:
            logps, *_ = ScoringPass(run_forest, forest)(self.model, adapted)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            return summary(error)
        worst = float((logps.float() - self.expected).abs().max())
        if worst <= TOLERANCE or worst <= self._noise():
            return None
        return f"log-probabilities differ by {worst:.1e} from separate rows"

    def _own(self, rows: slice | list[int]) -> Tensor:
        """Log-probabilities of the scored nodes by the model's own forward, 0 in rows that are left out."""
        forest, chosen = self.forest, torch.arange(len(self.rows.ids), device=self.rows.ids.device)[rows]
        ids = self.rows.ids[chosen]
        if self.rope is not None:  # padding would change its numbers
            self.rope.reset()
            ids = ids[:, : int(forest.depth[torch.isin(self.rows.row, chosen)].max()) + 1]
        inputs: dict[str, Any] = {"input_ids": ids}
        if forest.images is not None:
            inputs = own_inputs(self.model, forest.images, ids)
        output = type(self.model).forward(self.model, **inputs, use_cache=False, return_dict=True)
        logps = output.logits.float().log_softmax(-1)
        place = torch.full((len(self.rows.ids),), -1, device=chosen.device)
        place[chosen] = torch.arange(len(chosen), device=chosen.device)
        at = place[self.rows.row[forest.scored]]
        before = (forest.depth[forest.scored] - 1).clamp(max=logps.shape[1] - 1)
        scored = logps[at.clamp(min=0), before, forest.target]
        return torch.where(at >= 0, scored, torch.zeros_like(scored))

    def _alone(self) -> Tensor:
        """The same by a forward for each row."""
        return torch.stack([self._own([row]) for row in range(len(self.rows.ids))]).sum(0)

    def _noise(self) -> float:
        """The tolerance, from how far the model is from itself when rows stand alone."""
        if self.tolerance is None:
            noise = float((self._alone() - self.expected).abs().max())
            rounding = torch.finfo(self.model.dtype).eps * float(self.expected.abs().max())
            self.tolerance = 8 * noise + (rounding if self.model.dtype.itemsize < 4 else 0.0)
        return self.tolerance


def _sample(model: PreTrainedModel, images: ImageBatch | None) -> Forest:
    """Two prompts with two responses each; one image stands in the first prompt, two in the second."""
    generator = np.random.default_rng(0)
    config = model.config
    vocabulary = config.get_text_config().vocab_size
    special = {
        value for name, value in config.to_dict().items() if name.endswith(("_token_id", "_token_index"))
    }
    words = np.asarray([word for word in range(vocabulary // 8, vocabulary) if word not in special])
    keys, counts = ([], []) if images is None else (images.keys.tolist(), images.counts.tolist())
    seen = list(map(image_ids, keys, counts))
    examples = []
    for number, (prompt, lengths) in enumerate([(7, (7, 4)), (5, (3, 8))]):
        context = generator.choice(words, prompt)
        for image in seen[: number + 1]:
            context = np.concatenate([context, image, generator.choice(words, 3)])
        cells = tuple(Cell(context, generator.choice(words, length)) for length in lengths)
        examples.append(TokenExample(cells, {}, number))
    arrays = {} if images is None else dict(zip(keys, images.arrays, strict=True))
    return pack(examples, images=arrays).to(model.device)


@contextmanager
def _as_scored(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, no gradients, short windows and rotary positions; all restored."""
    config = model.config.get_text_config()
    rope = LengthRope.of(model)
    windows = {
        name: window
        for name in ("sliding_window", "attention_chunk_size")
        if (window := getattr(config, name, None)) is not None
    }
    try:
        for name in windows:
            setattr(config, name, SHORT_WINDOW)
        shortened = nullcontext() if rope is None else rope.shortened(SHORT_ROPE)
        with evaluating(model), torch.no_grad(), shortened:
            yield
    finally:
        for name, window in windows.items():
            setattr(config, name, window)
