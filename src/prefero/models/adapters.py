"""Adapters as a reference: the policy with its low-rank updates switched off is the model it started from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from prefero.errors import PreferoError


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model without its adapters, for forwards inside this context.

    Only the flag that the layers read is set. PEFT's own ``disable_adapter`` also freezes the parameters,
    which sharded training remembers: adapters on the head would then not train.

    Raises:
        PreferoError: where the adapters cannot be taken off by the flag: merged ones, and whole modules that
            are trained beside them (``modules_to_save``). A cached or frozen reference serves both.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(layer.merged for layer in layers):
        raise PreferoError("the adapters are merged into the weights: use a cached or a frozen reference")
    if any(isinstance(module, AuxiliaryTrainingWrapper) for module in model.modules()):
        raise PreferoError(
            "the adapter trains whole modules (modules_to_save), which switching adapters off would keep "
            "changed: use a cached or a frozen reference"
        )
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer, flag in zip(layers, before, strict=True):
            layer._disable_adapters = flag
