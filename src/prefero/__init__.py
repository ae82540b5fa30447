"""Learning from preferences: every method by name, on any Hugging Face model.

The names below are loaded when they are first used, so that ``import prefero`` and ``prefero --help`` cost
nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefero.errors import PreferoError

if TYPE_CHECKING:
    from prefero.data.formats import load_examples as load_examples
    from prefero.doctor.inspection import inspect as inspect
    from prefero.objectives import method as method
    from prefero.objectives import methods as methods
    from prefero.training.checkpoints import load_objective as load_objective
    from prefero.training.config import PreferenceArguments as PreferenceArguments
    from prefero.training.config import TrainConfig as TrainConfig
    from prefero.training.run import compare as compare
    from prefero.training.run import train as train
    from prefero.training.trainer import PreferenceTrainer as PreferenceTrainer

    __version__: str

_HOMES = {
    "PreferenceArguments": "prefero.training.config",
    "PreferenceTrainer": "prefero.training.trainer",
    "TrainConfig": "prefero.training.config",
    "compare": "prefero.training.run",
    "inspect": "prefero.doctor.inspection",
    "load_examples": "prefero.data.formats",
    "load_objective": "prefero.training.checkpoints",
    "method": "prefero.objectives",
    "methods": "prefero.objectives",
    "train": "prefero.training.run",
}

__all__ = ["PreferoError", "__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("prefero")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name == "papers":
        raise AttributeError(
            'papers are part of the laboratory: import prefero_lab.papers (pip install "prefero[lab]")'
        )
    else:
        raise AttributeError(f"module 'prefero' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
