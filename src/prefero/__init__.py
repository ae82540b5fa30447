"""Learning from preferences: every method by name, on any Hugging Face model.

The names below are loaded when they are first used, so that ``import prefero`` and ``prefero --help`` cost
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefero.errors import PreferoError
from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.data.formats import load_examples as load_examples
    from prefero.doctor.inspection import inspect as inspect
    from prefero.objectives import method as method, methods as methods
    from prefero.training.checkpoints import load_objective as load_objective
    from prefero.training.config import PreferenceArguments as PreferenceArguments, TrainConfig as TrainConfig
    from prefero.training.merging import merge as merge
    from prefero.training.run import train as train
    from prefero.training.study import compare as compare
    from prefero.training.sweeps import sweep as sweep
    from prefero.training.trainer import PreferenceTrainer as PreferenceTrainer

    __version__: str

_load, _names, _public = lazily(__name__)

__all__ = ["PreferoError", "__version__", *_public]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        globals()[name] = version("prefero")
        return globals()[name]
    if name == "papers":
        raise AttributeError(
            'papers are part of the laboratory: import prefero_lab.papers (pip install "prefero[lab]")'
        )
    return _load(name)


def __dir__() -> list[str]:
    return sorted({*_names(), "__version__"})
