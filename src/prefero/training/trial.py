"""Trying settings out: optimizer, schedule and loader are made with them on one weight before data are read
and models loaded, so that what transformers and torch refuse is refused early, by the settings' names.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from transformers import Trainer, get_scheduler
from transformers.integrations import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
)
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR
from transformers.trainer_utils import SchedulerType
from transformers.utils import is_liger_kernel_available

from prefero.errors import PreferoError
from prefero.models.loading import first_line
from prefero.training.config import PreferenceArguments

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "optimizer": (
        "optim", "optim_args", "optim_target_modules", "learning_rate", "adam_beta1", "adam_beta2",
        "adam_epsilon", "weight_decay",
    ),
    "schedule": ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "learning_rate"),
    "loader": (
        "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
    ),
    "activation checkpointing": ("activation_checkpointing", "activation_checkpointing_kwargs"),
    "compiled model": ("torch_compile", "torch_compile_backend", "torch_compile_mode"),
    "tracker": ("report_to", "push_to_hub", "hub_model_id", "hub_revision"),
    "best model": ("metric_for_best_model", "lr_scheduler_type", "load_best_model_at_end"),
}  # fmt: skip
"""What is made of settings, and of which."""

_OF_THE_MODEL = ("galore", "apollo", "lomo", "adalomo")
"""Optimizers that are made for the layers of a model, so that one weight cannot stand for it."""

_UNKNOWN_RATE = 1e-5

_UNLISTED_TRACKERS = ("azure_ml", "flyte")
"""Trackers that transformers knows, and leaves out of its list of those that are installed."""


@contextmanager
def explaining(args: PreferenceArguments, made: str) -> Iterator[None]:
    """Turn every error inside into a :class:`PreferoError` with those settings of what is ``made``
    (:data:`SETTINGS`) that are not at their default, or else the first of them."""
    try:
        yield
    except PreferoError:
        raise
    except Exception as error:
        given = given_of(args, made) or f"training.{SETTINGS[made][0]}"
        raise PreferoError(
            f"the {made} cannot be made with {given}: {first_line(error)}{_known(args, made, error)}"
        ) from error


def given_of(args: PreferenceArguments, made: str) -> str:
    """The settings of what is ``made`` that are not at their default, with their values."""
    names = [name for name in SETTINGS[made] if _is_given(args, name)]
    return ", ".join(f"training.{name}={_shown(getattr(args, name))}" for name in names)


def _is_given(args: PreferenceArguments, name: str) -> bool:
    default = args.__dataclass_fields__[name].default
    return getattr(args, name) not in (default, None, {}, [], "none")


def _shown(value: Any) -> str:
    return str(getattr(value, "value", value))


def _known(args: PreferenceArguments, made: str, error: Exception) -> str:
    """The arguments that a schedule takes, where one does not fit it."""
    if made != "schedule" or not isinstance(error, TypeError | ValueError):
        return ""
    function: Any = TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(args.lr_scheduler_type)]
    taken = signature(function).parameters
    general = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
    names = ", ".join(name for name in taken if name not in general)
    return f". training.lr_scheduler_kwargs of {_shown(args.lr_scheduler_type)}: {names or 'none'}"


def try_out(args: PreferenceArguments, *, held_out: bool) -> None:
    """Raise :class:`PreferoError` for settings of training that cannot be used, as far as that shows without
    data and model. ``held_out`` says whether there are held-out data."""
    measures = "eval_on_start" if args.eval_strategy == "no" else "eval_strategy"
    if (args.eval_strategy != "no" or args.eval_on_start) and not held_out:
        raise PreferoError(
            f"training.{measures} is {_shown(getattr(args, measures))}, but there are no held-out data: give "
            "them as data.eval (a file, or a share such as 0.1), or leave the setting out"
        )
    stops = args.early_stopping_patience is not None
    by_measures = "early_stopping_patience" if stops else "load_best_model_at_end"
    if getattr(args, by_measures) and args.eval_strategy == "no":
        have = "set training.eval_strategy=steps and training.eval_steps" if held_out else "give data.eval"
        raise PreferoError(
            f"training.{by_measures} goes by evaluations, and there are none while this run trains: {have}, "
            "or leave it out"
        )
    if args.layout == "flex" and args.device.type == "cpu":
        raise PreferoError(
            "training.layout is flex, whose attention has no gradient on the CPU: leave it at auto"
        )
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise PreferoError(
            "training.use_liger_kernel needs liger-kernel, which is not installed: pip install liger-kernel"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _try_optimizer(args)
        _try_schedule(args)
        _try_trackers(args)
        _try_the_rest(args)


def _try_optimizer(args: PreferenceArguments) -> None:
    trial = copy.copy(args)
    trial.learning_rate = _UNKNOWN_RATE if args.learning_rate is None else args.learning_rate
    with explaining(args, "optimizer"):
        of_the_model = _shown(args.optim).startswith(_OF_THE_MODEL)
        with suppress(*([ValueError, AttributeError, TypeError] if of_the_model else [])):
            made_by, options = Trainer.get_optimizer_cls_and_kwargs(trial)
        if of_the_model:
            return
        made_by([nn.Parameter(torch.zeros(2, 2))], **options)
        wanted = [item.partition("=")[0].strip() for item in (args.optim_args or "").split(",")]
        unread = [name for name in wanted if name and name not in options]
        if unread:
            raise ValueError(f"it takes no {', '.join(unread)}; leave that out of training.optim_args")
        if args.optim_target_modules:
            raise ValueError("only galore and apollo take training.optim_target_modules: leave it out")


def _try_schedule(args: PreferenceArguments) -> None:
    rate = _UNKNOWN_RATE if args.learning_rate is None else args.learning_rate
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    options: Any = args.lr_scheduler_kwargs
    with explaining(args, "schedule"):
        schedule = get_scheduler(
            args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=1,
            num_training_steps=4,
            scheduler_specific_kwargs=options,
        )
        measured = isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau | GreedyLR)
        for _ in range(4):
            schedule.step(*([0.0] if measured else []))


def _try_trackers(args: PreferenceArguments) -> None:
    """Look whether the trackers are installed; transformers would do so once data and model are loaded."""
    with explaining(args, "tracker"):
        get_reporting_integration_callbacks(args.report_to)
        there = {*get_available_reporting_integrations(), *_UNLISTED_TRACKERS}
        missing = [name for name in args.report_to or () if name not in there]
        if missing:
            raise ValueError(f"{', '.join(missing)} is not installed: install it, or leave report_to out")


def _try_the_rest(args: PreferenceArguments) -> None:
    """Make what the other settings are of: a loader, a checkpointed layer, a compiled one."""
    with explaining(args, "loader"):
        loader_of([0], args)
    if args.activation_checkpointing:
        with explaining(args, "activation checkpointing"):
            given: Any = args.activation_checkpointing_kwargs or {}
            options = dict(given)
            options.pop("offload", None)
            if options.pop("every_n_layers", 1) < 1:
                raise ValueError("every_n_layers is at least 1")
            checkpoint(torch.sin, torch.zeros(1, requires_grad=True), **{"use_reentrant": False, **options})
    if args.torch_compile:
        with explaining(args, "compiled model"):
            backend: Any = args.torch_compile_backend
            torch.compile(nn.Linear(1, 1), backend=backend, mode=args.torch_compile_mode)


def loader_of(data: Any, args: PreferenceArguments, **options: Any) -> DataLoader:
    """A loader with the settings of ``args``; ``options`` say what it yields."""
    workers = args.dataloader_num_workers
    return DataLoader(
        data,
        num_workers=workers,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        multiprocessing_context=args.dataloader_multiprocessing_context if workers else None,
        **options,
    )
