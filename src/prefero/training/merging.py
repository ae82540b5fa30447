"""Adapters merged into the model that they belong to: a plain model folder, which any library loads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.models.loading import ModelSource, first_line, kind_of, merged
from prefero.storage import check_output, replacing_folder, write_text
from prefero.training.card import merged_card, write_card
from prefero.training.checkpoints import CONFIG, STATE
from prefero.training.run_folder import evaluation_of, need_model, record_of

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

PROMPT = "Question: Which city is the capital of France?\nAnswer: The capital of France is Paris."
"""Merged and unmerged weights are compared on it, with the tokens that the tokenizer was given."""

MOST_NEW_TOKENS = 16

TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}
"""The largest difference of a log-probability, in nats, that rounding the merged weights may make."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of :func:`merge`: the ``folder`` of the merged model, whose weights are of ``dtype``, and
    the largest ``difference`` of a log-probability between it and the base with its adapters, in nats."""

    folder: Path
    adapters: str
    base: str
    dtype: str
    difference: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "model": str(self.folder),
            "adapters": self.adapters,
            "base": self.base,
            "dtype": self.dtype,
            "largest_difference": self.difference,
            "notes": list(self.notes),
        }


def merge(
    adapters: str | Path, output: str | Path, *, base: str | None = None, dtype: Dtype = "auto"
) -> Merged:
    """Merge low-rank adapters into the weights of the model that they belong to, and save a whole model with
    its tokenizer, chat template, generation settings and card.

    Args:
        adapters: the folder of a run, its model, or any folder or hub name of PEFT adapters.
        output: a new or empty folder.
        base: where the model is that the adapters belong to, if not where ``adapter_config.json`` says.
        dtype: of the merged weights; ``auto`` is that of the base as it is stored.

    Raises:
        PreferoError: there are no adapters, the base is missing, quantised or of another kind, or the merged
            model gives other log-probabilities; nothing is written then.
    """
    output = Path(output)
    check_output(output, "folder")
    if output.is_dir() and any(output.iterdir()):
        raise PreferoError(f"{output} holds files already: name a new folder for the merged model")
    folder, run = _folder_and_run(Path(adapters))
    record = {} if run is None else record_of(run)
    trained = record.get("config", {}).get("model") or {}
    remote = bool(trained.get("trust_remote_code"))
    source = ModelSource(str(folder), adapter="merge", dtype=dtype, trust_remote_code=remote)
    if source.adapter_file is None:
        replace(source, adapter=None).config()  # or a model is missing altogether
        raise PreferoError(
            f"{str(adapters)!r} is a whole model and has no adapters (no adapter_config.json): there is "
            "nothing to merge"
        )
    if base is not None:
        source = source.on(base)
        ModelSource(base).config()  # or that model is missing
    try:
        config = source.config()
    except PreferoError as error:
        raise PreferoError(f"{error}. If that model is elsewhere by now, name it: --base MODEL") from None
    assert source.base is not None
    _refuse_quantised(config, source.base.name)
    kind = kind_of(trained.get("kind", "auto"), source, options=trained.get("options"))
    if not kind.loader:
        raise PreferoError(
            f"the adapters belong to a model of kind {kind.name}, whose pipeline loads and fuses them "
            "itself: pipeline.load_lora_weights(folder), pipeline.fuse_lora()"
        )
    processor = source.processor(kind.processor_loader)
    model = source.adapted(source.base.load(kind.loader, kind.what))
    tokens = _tokens(getattr(processor, "tokenizer", processor))
    apart = _logps(model, tokens)
    try:
        whole = merged(model)
    except (AttributeError, NotImplementedError, ValueError) as error:
        named = model.active_peft_config.peft_type.value
        raise PreferoError(f"adapters of the kind {named} cannot be merged: {first_line(error)}") from None
    weights = next(whole.parameters()).dtype
    difference = float((_logps(whole, tokens) - apart).abs().max())
    if not difference <= TOLERANCES.get(weights, 1e-3):
        wider = weights in (torch.float16, torch.bfloat16)
        instead = "merge with --dtype float32" if wider else "these adapters work beside their base alone"
        raise PreferoError(
            f"the merged model gives log-probabilities that differ by up to {difference:.3g} nats from "
            f"those of the base with its adapters, so it is not written: {instead}"
        )
    notes = list(_notes(folder, trained, source.base.name))
    with replacing_folder(output) as draft:
        whole.save_pretrained(draft)
        processor.save_pretrained(draft)
        for name in (CONFIG, STATE):
            if (folder / name).is_file():
                shutil.copy(folder / name, draft / name)
        if run is not None:
            measured = [] if folder.name.startswith("checkpoint-") else evaluation_of(run)  # of the whole run
            write_card(draft, record, measured, merged_into=source.base.name)
        else:
            write_text(draft / "README.md", merged_card(str(adapters), source.base.name))
    told = str(weights).removeprefix("torch.")
    return Merged(output, str(folder), source.base.name, told, difference, tuple(notes))


def _folder_and_run(named: Path) -> tuple[Path, Path | None]:
    """The folder of the adapters, and the run that they are of, if they are one's."""
    if (named / "run.json").is_file():
        return need_model(named), named
    inside = named.name == "model" or named.name.startswith("checkpoint-")
    return named, named.parent if inside and record_of(named.parent) else None


def _refuse_quantised(config: Any, base: str) -> None:
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return
    method = stored.get("quant_method") if isinstance(stored, dict) else type(stored).__name__
    raise PreferoError(
        f"the weights of {base!r} are stored quantised ({method}), and adapters cannot be merged into "
        "such weights without changing them: name the model that they were quantised from, --base MODEL"
    )


def _notes(folder: Path, trained: dict[str, Any], base: str) -> Iterator[str]:
    if bits := trained.get("quantization"):
        yield (
            f"the adapters were trained on {bits} weights, and are merged into the unquantised ones of "
            f"{base}: what the model gives may differ a little from what the run measured"
        )
    if (folder / STATE).is_file():
        yield f"what the objective learned is beside the model: {CONFIG}, {STATE}"


def _tokens(tokenizer: Any) -> Tensor:
    """The prompt with some of the tokens that the tokenizer was given, one row."""
    added = sorted(tokenizer.get_added_vocab().values())[-MOST_NEW_TOKENS:]
    return torch.tensor([[*tokenizer(PROMPT)["input_ids"], *added]])


@torch.no_grad()
def _logps(model: nn.Module, tokens: Tensor) -> Tensor:
    """The log-probabilities of every token at every place."""
    config: Any = model.config
    decoder = {"decoder_input_ids": tokens} if getattr(config, "is_encoder_decoder", False) else {}
    logits = model.eval()(input_ids=tokens, **decoder).logits
    return logits.float().log_softmax(-1)
