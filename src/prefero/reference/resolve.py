"""From what a recipe says about a reference to who gives its log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from prefero.data.cells import TokenExample
from prefero.errors import PreferoError
from prefero.kinds.kind import Kind
from prefero.models.adapters import adapters_off
from prefero.reference.cache import CachedLogps, Progress, Share, open_store
from prefero.reference.fingerprint import model_fingerprint
from prefero.reference.providers import AdaptersOff, Changing, Frozen, Moving, Provider, Trained, frozen_copy

ReferenceKind = Literal["auto", "none", "frozen", "cached", "adapters_off", "checkpoint", "moving", "trained"]

Load = Callable[[str], nn.Module]
"""Loads and adapts the model of that name."""


@dataclass(frozen=True)
class ReferenceSpec:
    """Who a model other than the policy is.

    ``auto`` is the policy as it starts: its log-probabilities from the disk cache, or with new adapters the
    policy without them, or a frozen copy where neither serves (adapters that are trained already, a signal
    that needs both models at once); the copy shares all weights that are not trained. ``model`` names another
    checkpoint. ``alpha`` and ``every`` belong to ``moving`` (:class:`~prefero.reference.providers.Moving`),
    ``learning_rate`` and ``every`` to ``trained`` (:class:`~prefero.reference.providers.Trained`), which is a
    second policy for objectives that train two; ``cache`` is the folder of the disk cache.
    """

    kind: ReferenceKind = "auto"
    model: str | None = None
    alpha: float = 0.6
    every: int | None = 512
    cache: Path | None = None
    learning_rate: float | None = None

    @classmethod
    def named(cls, name: str | None) -> ReferenceSpec:
        """A kind by its name, or the checkpoint of that name."""
        if name is None:
            return cls("none")
        return cls(name) if name in get_args(ReferenceKind) else cls("checkpoint", model=name)  # type: ignore[arg-type]


@dataclass(frozen=True)
class CachedModel:
    """Log-probabilities out of the cache; ``opened`` gives the model that fills it, for as long as that
    takes."""

    logps: CachedLogps
    opened: Callable[[], AbstractContextManager[nn.Module]]
    is_policy: bool


@dataclass
class References:
    """Every model besides the policy: those that are scored, and those that are looked up."""

    providers: dict[str, Provider] = field(default_factory=dict)
    cached: dict[str, CachedModel] = field(default_factory=dict)

    @property
    def moving(self) -> dict[str, Moving]:
        return {name: one for name, one in self.providers.items() if isinstance(one, Moving)}

    @property
    def trained(self) -> dict[str, Trained]:
        return {name: one for name, one in self.providers.items() if isinstance(one, Trained)}

    @property
    def changing(self) -> dict[str, Changing]:
        return {name: one for name, one in self.providers.items() if isinstance(one, Changing)}


@dataclass(frozen=True)
class Demand:
    """What an objective asks of a model: ``signals`` of its own, or to be ``compared`` with the policy by one
    of the policy's signals (a divergence over the full vocabulary). ``exact`` objectives are sums over
    examples, ``redrawn`` says why a model of this kind is scored anew each time, if it is."""

    signals: frozenset = frozenset()
    compared: bool = False
    exact: bool = True
    redrawn: str = ""

    @property
    def live(self) -> str | None:
        """Why the disk cache cannot serve it, if it cannot."""
        if self.compared:
            return "the objective compares its next-token distributions with the policy's"
        if self.redrawn:
            return self.redrawn
        if self.signals:
            return f"the objective reads {', '.join(sorted(signal.name for signal in self.signals))} of it"
        return None


@dataclass(frozen=True)
class Adapters:
    """Whether the policy has adapters, and whether it is the same model without them."""

    there: bool = False
    neutral: bool = False


def adapters_of(policy: nn.Module) -> Adapters:
    """Adapters are known to be neutral if they are new low-rank ones: their second factor is 0."""
    if not any(isinstance(module, BaseTunerLayer) for module in policy.modules()):
        return Adapters()
    trained = [(name, weight) for name, weight in policy.named_parameters() if weight.requires_grad]
    low_rank = all("lora_" in name for name, _ in trained)
    second = [weight for name, weight in trained if "lora_B" in name or "lora_embedding_B" in name]
    whole = any(isinstance(module, ModulesToSaveWrapper) for module in policy.modules())
    return Adapters(True, low_rank and not whole and all(not weight.any() for weight in second))


def chosen_kind(name: str, spec: ReferenceSpec, demand: Demand, adapters: Adapters) -> ReferenceKind:
    """What ``auto`` stands for. Raises :class:`PreferoError` for a choice that cannot serve the objective; no
    model has to be loaded to know."""
    where = "reference" if name == "reference" else f"models.{name}"
    if spec.kind == "none":
        raise PreferoError(f"{where} is none, but the objective reads the log-probabilities of {name!r}")
    if name != "reference" and spec.model is None and spec.kind in ("auto", "cached", "checkpoint"):
        raise PreferoError(f"the objective reads a model called {name!r}: name it, {where}: org/model")
    if spec.learning_rate is not None and spec.kind != "trained":
        raise PreferoError(f"{where} has a learning rate, but is not trained: add kind: trained")
    if spec.kind == "trained":
        _refuse_to_train(name, where, demand)
    if spec.cache is not None and spec.kind in ("moving", "frozen", "adapters_off", "trained"):
        raise PreferoError(
            f"{where} is {spec.kind}, which is scored every step: a cache holds a fixed model only"
        )
    if spec.kind == "cached" and demand.live:
        raise PreferoError(f"{where} cannot be cached: {demand.live}; use {where}: frozen")
    if spec.kind == "adapters_off" and not adapters.there:
        raise PreferoError(f"{where} is adapters_off, but the policy has no adapters: add model.lora")
    if spec.kind in ("auto", "checkpoint") and spec.model is not None:
        return "checkpoint" if demand.live else "cached"
    if spec.kind != "auto":
        return spec.kind
    if adapters.there:
        return "adapters_off" if adapters.neutral else "frozen"
    return "frozen" if demand.live else "cached"


def _refuse_to_train(name: str, where: str, demand: Demand) -> None:
    if name == "reference":
        raise PreferoError(
            "reference is trained, but it is what the policy is measured against: one that changes is "
            "reference: moving"
        )
    if demand.compared:
        raise PreferoError(
            f"{where} cannot be trained: the objective compares its next-token distributions with the "
            f"policy's, which gives it no gradient; use {where}: frozen"
        )
    if not demand.exact:
        raise PreferoError(
            f"{where} cannot be trained: the objective looks at the whole step at once, whose gradient only "
            f"the policy gets; use {where}: frozen"
        )


def resolve(
    demands: Mapping[str, Demand],
    specs: Mapping[str, ReferenceSpec],
    kind: Kind,
    policy: nn.Module,
    load: Load,
    *,
    precision: str = "",
) -> References:
    """Who serves each model that the objective reads. Called with the policy as it starts."""
    result = References()
    adapters = adapters_of(policy)
    for name, demand in demands.items():
        spec = specs.get(name, ReferenceSpec())
        match chosen_kind(name, spec, demand, adapters):
            case "cached" if spec.model is not None:
                result.cached[name] = _cached_checkpoint(spec, spec.model, load, precision)
            case "cached":
                result.cached[name] = _cached_policy(spec, policy, precision, kind.model_name)
            case "adapters_off":
                result.providers[name] = AdaptersOff(kind, policy)
            case "moving":
                result.providers[name] = Moving(kind, policy, alpha=spec.alpha, every=spec.every)
            case "trained":
                result.providers[name] = Trained(
                    kind, policy, learning_rate=spec.learning_rate, every=spec.every
                )
            case "checkpoint":
                assert spec.model is not None
                result.providers[name] = Frozen(kind, load(spec.model))
            case _:
                result.providers[name] = Frozen(kind, frozen_copy(policy))
    return result


def fill(
    references: References,
    kind: Kind,
    examples: Sequence[TokenExample],
    *,
    tokens_per_row: int,
    device: torch.device,
    share: Share,
    progress: Progress | None = None,
) -> None:
    """Score what the caches lack of the cells of ``examples``, with the models that they belong to."""
    for name, cached in references.cached.items():
        if cached.logps.lacking(examples):
            bar = None if progress is None else partial(progress, desc=f"scoring with the {name}")
            with cached.opened() as model:
                cached.logps.fill(
                    kind,
                    model,
                    examples,
                    tokens_per_row=tokens_per_row,
                    device=device,
                    share=share,
                    progress=bar,
                )


def _cached_policy(spec: ReferenceSpec, policy: nn.Module, precision: str, name: str) -> CachedModel:
    adapters = adapters_of(policy)
    fingerprint = model_fingerprint(policy, adapters=not adapters.neutral, precision=precision)

    @contextmanager
    def opened() -> Iterator[nn.Module]:
        with adapters_off(policy) if adapters.neutral else nullcontext():
            yield policy

    store = open_store(fingerprint, spec.cache, {"model": name})
    return CachedModel(CachedLogps(store), opened, is_policy=True)


def _cached_checkpoint(spec: ReferenceSpec, name: str, load: Load, precision: str) -> CachedModel:
    # Held between looking at its weights and filling the cache, then let go.
    held = [load(name)]
    store = open_store(model_fingerprint(held[0], precision=precision), spec.cache, {"model": name})

    @contextmanager
    def opened() -> Iterator[nn.Module]:
        model = held.pop() if held else load(name)
        yield model

    return CachedModel(CachedLogps(store), opened, is_policy=False)
