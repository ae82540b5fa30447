"""A training run of an experiment: through the trainer that real runs use, on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from prefero.demo.start import one_thread, quiet
from prefero.reference.providers import ReferenceSpec
from prefero.storage import read_lines
from prefero.training.run_folder import MonitorCallback
from prefero.training.trainer import PreferenceTrainer
from prefero_lab.papers.paper import Trained

CURVES = (
    "loss",
    "rewards/accuracies",
    "rewards/margins",
    "log_ratios/chosen",
    "log_ratios/rejected",
    "grad_norm",
)
"""Metrics kept from the log of a training run."""


def trained(
    model: str | nn.Module, data: Any, settings: Mapping[str, Any], *, seed: int, **budget: Any
) -> Trained[nn.Module]:
    """A model after :class:`~prefero.training.trainer.PreferenceTrainer`, and its curves.

    ``settings`` are the arm's: ``objective`` and whatever else the trainer takes, such as ``learning_rate``,
    ``reference`` or ``models``. ``budget`` are arguments that all arms share (``num_train_epochs``,
    ``examples_per_step``, ``kind``, …); an arm's own take precedence. A ``model`` that is no name or folder
    is trained itself: give a copy. A ``reference``, or one of ``models``, may be a mapping, as in a recipe.
    Reference scores come from the disk cache, which arms and papers share.
    """
    with TemporaryDirectory(prefix="prefero-") as folder, one_thread(), quiet():
        arguments = {"lr_scheduler_type": "linear", "logging_steps": 0.05, **budget, **settings}
        if "reference" in arguments:
            arguments["reference"] = _reference(arguments["reference"])
        if "models" in arguments:
            arguments["models"] = {name: _reference(one) for name, one in arguments["models"].items()}
        trainer = PreferenceTrainer(
            model,
            data,
            output_dir=folder,
            seed=seed,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            **arguments,
        )
        trainer.remove_callback(
            MonitorCallback
        )  # the survey shows the curves, and arms that break on purpose
        trainer.train()
        policy = trainer.model.eval()
        curves = _curves(Path(folder) / "metrics.jsonl")
        del trainer
        gc.collect()  # a trainer holds itself in cycles
    return Trained(policy, curves)


def _reference(given: Any) -> Any:
    return ReferenceSpec(**given) if isinstance(given, Mapping) else given


def _curves(file: Path) -> dict[str, list[tuple[float, float]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in read_lines(file):
        for name in CURVES:
            if isinstance(line.get(name), int | float):
                curves.setdefault(name, []).append((float(line["step"]), float(line[name])))
    return curves
