"""Training: recipes, the trainer, its steps, metrics and monitors, checkpoints, and whole runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.training.checkpoints import (
        load_objective as load_objective,
        save_objective as save_objective,
    )
    from prefero.training.config import PreferenceArguments as PreferenceArguments, TrainConfig as TrainConfig
    from prefero.training.merging import Merged as Merged, merge as merge
    from prefero.training.metrics import Evaluated as Evaluated
    from prefero.training.monitors import Finding as Finding, Monitor as Monitor, Monitors as Monitors
    from prefero.training.run import train as train
    from prefero.training.step import (
        BackwardAndStep as BackwardAndStep,
        UpdateRule as UpdateRule,
        WholeStep as WholeStep,
    )
    from prefero.training.study import compare as compare
    from prefero.training.sweeps import sweep as sweep
    from prefero.training.trainer import PreferenceTrainer as PreferenceTrainer

__getattr__, __dir__, __all__ = lazily(__name__)
