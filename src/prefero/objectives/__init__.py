"""Objectives: functions of token log-probabilities and annotations, and the published methods by name.

This package imports torch and nothing of transformers, so it can be used alone.
"""

from prefero.objectives import presets
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.objectives.compare import (
    Compare,
    Match,
    Objective,
    Sum,
    negative_log_likelihood,
    penalty,
    primary,
)
from prefero.objectives.configurations import from_config
from prefero.objectives.contrasts import (
    Across,
    AcrossLabels,
    Comparisons,
    Each,
    EveryPair,
    Pair,
    Ranking,
    Sets,
)
from prefero.objectives.needs import Needs, dry_run
from prefero.objectives.quantities import Column, Length, Logp, Measured, Quantity, Sides, log_ratio
from prefero.objectives.reductions import Term
from prefero.objectives.registry import Equal, Method, Parameter, find, method, methods
from prefero.objectives.slots import filled

__all__ = [
    "Across",
    "AcrossLabels",
    "Column",
    "Compare",
    "Comparisons",
    "Each",
    "Equal",
    "EveryPair",
    "Length",
    "Logp",
    "Match",
    "Measured",
    "Method",
    "Needs",
    "Objective",
    "Pair",
    "Parameter",
    "PreferenceBatch",
    "Quantity",
    "Ranking",
    "Sets",
    "Sides",
    "Signal",
    "Sum",
    "Term",
    "TokenLogps",
    "dry_run",
    "filled",
    "find",
    "from_config",
    "log_ratio",
    "method",
    "methods",
    "negative_log_likelihood",
    "penalty",
    "presets",
    "primary",
]
