"""Adapters: how a golden vector's inputs reach the library's public objects. No formula is written here.

A module of this package registers functions ::

    @adapter("p053", "dpo")
    def dpo(params, inputs):
        return {"loss": ..., "grad_policy_chosen": ...}

and the runner compares every name of the vector's ``expected`` with what the function returns: numbers (and
nested lists or tensors of them) by relative error, strings, booleans and integers exactly. An adapter never
sees what is expected.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

Adapter = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]

_adapters: dict[tuple[str, str], Adapter] = {}


def adapter(paper: str, method: str) -> Callable[[Adapter], Adapter]:
    """Register the decorated function for the vectors of ``(paper, method)``."""

    def register(function: Adapter) -> Adapter:
        if (paper, method) in _adapters:
            raise ValueError(f"two adapters for {paper} {method}")
        _adapters[paper, method] = function
        return function

    return register


def adapters() -> Mapping[tuple[str, str], Adapter]:
    """Every registered adapter, by ``(paper, method)``."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _adapters
