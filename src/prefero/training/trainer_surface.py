"""The internals of :class:`transformers.Trainer` that prefero uses, and a check that a release has them.

When a release renames a private method, an override of it fails silently: training runs without it and
computes something else. So each one is listed here with its purpose, and no trainer is made on a release that
differs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import requires
from typing import Any

import transformers
from transformers import Trainer, TrainingArguments

from prefero.errors import PreferoError

OVERRIDDEN = {
    "train": "check the starting point first and stop in order on a signal",
    "get_train_dataloader": "feed micro-batches as the step plan packs them",
    "get_eval_dataloader": "feed held-out examples as a plan packs them",
    "get_batch_samples": "begin an optimizer step with all of its micro-batches",
    "compute_loss": "compute the objective's loss as a share of the whole step",
    "floating_point_ops": "count none, because a micro-batch has no input_ids to count by",
    "create_optimizer": "add what the objective and trained references learn to the optimizer",
    "create_scheduler": "say where warm-up leaves a run of one step nothing to learn",
    "create_model_card": "say what was trained, on what and how",
    "evaluate": "fill the reference cache before held-out examples are scored",
    "predict": "say that no logits are kept",
    "evaluation_loop": "measure the objective and its metrics, not the model's own loss",
    "hyperparameter_search": "make a trainer for each trial, as no trainer trains twice from the start",
    "log": "add the metrics of the steps since the last line",
    "save_model": "save the objective with the model, and a sharded model in whole tensors",
    "_determine_best_metric": "name the metrics there are where the best model is to be by another",
    "_evaluate": "do so for a schedule that follows a metric",
    "_init_training_state": "end at the last step, and log, evaluate and save at the steps set now",
    "_prepare_inputs": "move packed micro-batches to the device",
    "_prepare_for_training": "fill the reference cache once the launcher has placed the policy",
    "_finalize_training": "count examples, not micro-batches",
    "_push_from_checkpoint": "push what the objective learns and what other libraries read, too",
    "_save_checkpoint": "mark a checkpoint as whole last, and remove an older one only then",
    "_load_from_checkpoint": "resume the objective, auxiliary models and a sharded policy too",
    "_load_best_model": "load the objective, and a model whose files have other names than its weights",
    "_save_optimizer_and_scheduler": "save the optimizer of a sharded policy in whole tensors",
    "_load_optimizer_and_scheduler": "load the optimizer of a sharded policy from whole tensors",
    "_get_grad_norm": "stop at a loss or gradient that is not finite; make a sharded norm a whole number",
    "_defer_fsdp_gradient_reduction": "reduce sharded gradients after each micro-batch, not all at the end",
}
"""Methods that prefero's trainer overrides, and what for."""

ATTRIBUTES = {
    "_globalstep_last_logged": "resume with a log that covers the steps before the checkpoint, too",
    "_total_loss_scalar": "do so, without counting these steps in the loss of the call",
    "_tr_loss": "do so; stop at a loss that is not finite",
    "accelerator": "run under its autocast and reduce over its processes",
    "callback_handler": "find the callbacks that stop training early",
    "control": "log samples apart from the numbers of the step",
    "is_deepspeed_enabled": "know that the launcher places the policy",
    "is_distributed_loading_by_transformers": "keep a policy that is sharded from being wrapped again",
    "is_fsdp_enabled": "know that the launcher places the policy",
    "loss_is_scaled_for_ga": "keep a loss that is a share of the whole step from being divided again",
    "lr_scheduler": "save and load it with the optimizer of a sharded policy",
    "model_wrapped": "evaluate with the model that training calls",
    "optimizer": "save and load it in whole tensors where the policy is sharded",
    "state": "know the step, and how many there are",
}
"""Attributes of a trainer that prefero reads or sets, and what for."""

ARGUMENTS = {"_n_gpu": "keep a process that sees several GPUs on one"}
"""Private attributes of :class:`transformers.TrainingArguments` that prefero sets, and what for."""


def differences(
    trainer: type, base: type = Trainer, arguments: type = TrainingArguments, release: str = ""
) -> Iterator[str]:
    """One sentence for each thing that ``trainer`` builds on and ``base`` does not have."""
    release = release or f"transformers {transformers.__version__}"
    for name, purpose in OVERRIDDEN.items():
        theirs = getattr(base, name, None)
        if theirs is None:
            yield f"{release} has no Trainer.{name}, which prefero overrides to {purpose}"
            continue
        ours, given = _parameters(getattr(trainer, name)), _parameters(theirs)
        for parameter in _named(ours):
            if parameter not in given:
                yield (
                    f"{release} has no parameter {parameter!r} of Trainer.{name}, which prefero overrides to "
                    f"{purpose}"
                )
        takes_any = any(one.kind is one.VAR_KEYWORD for one in ours.values())
        for parameter in _named(given):
            if parameter not in ours and not takes_any:
                yield (
                    f"{release} has a parameter {parameter!r} of Trainer.{name} that prefero does not know, "
                    f"which overrides it to {purpose}"
                )
    for name, purpose in ATTRIBUTES.items():
        if not _mentions(base, name):
            yield f"{release} has no Trainer.{name}, which prefero uses to {purpose}"
    for name, purpose in ARGUMENTS.items():
        if not _mentions(arguments, name):
            yield f"{release} has no TrainingArguments.{name}, which prefero sets to {purpose}"


@cache
def require_surface(trainer: type) -> None:
    """Raise :class:`PreferoError` if the installed transformers lacks what ``trainer`` builds on."""
    different = list(differences(trainer))
    if different:
        tested = next(one for one in requires("prefero") or () if one.startswith("transformers"))
        raise PreferoError(f'{"; ".join(different)}: pip install "{tested}"')


def _parameters(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {name: one for name, one in inspect.signature(method).parameters.items() if name != "self"}


def _named(parameters: dict[str, inspect.Parameter]) -> list[str]:
    anything = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, one in parameters.items() if one.kind not in anything]


def _mentions(owner: type, name: str) -> bool:
    """Whether the code of a class reads or sets an attribute of that name."""
    functions = [one.fget if isinstance(one, property) else one for one in vars(owner).values()]
    return any(name in inspect.unwrap(one).__code__.co_names for one in functions if inspect.isfunction(one))
