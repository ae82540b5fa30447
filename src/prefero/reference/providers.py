"""References: the models that the policy is measured against, and where their log-probabilities come from.

From who a model is (:class:`ReferenceSpec`) and what the objective reads of it (:class:`Demand`),
:func:`resolve` chooses a provider, which scores each micro-batch, or the disk cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

import torch
from peft.utils.other import ModulesToSaveWrapper
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.models.kind import Kind
from prefero.models.loading import adapter_layers, adapters_off, evaluating, fill_weight, local_weights
from prefero.models.signals import SecondModel
from prefero.objectives.batch import Signal, TokenLogps
from prefero.reference.cache import CachedLogps, CacheShare, Progress, model_fingerprint, open_store
from prefero.sections import STRICT, Spec

# Providers


class Provider(Protocol):
    """An auxiliary model that scores every micro-batch."""

    @property
    def model(self) -> nn.Module | SecondModel:
        """The model that two-model signals of the policy are measured against."""

    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        """The model's numbers for a micro-batch, by view; without gradients, unless the model is trained."""


class Frozen:
    """A model that stays as it is: a copy of the start, or another checkpoint."""

    def __init__(self, kind: Kind, model: nn.Module) -> None:
        self.kind = kind
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        return self.kind.score(self.model, inputs, signals)


class AdaptersOff:
    """The policy with its adapters switched off: the start of a run that trains adapters on a fixed model."""

    def __init__(self, kind: Kind, policy: nn.Module) -> None:
        self.kind, self.policy = kind, policy

    @property
    def model(self) -> SecondModel:
        return SecondModel(self.policy, partial(adapters_off, self.policy))

    @torch.no_grad()
    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        with adapters_off(self.policy), evaluating(self.policy):
            return self.kind.score(self.policy, inputs, signals)


class Changing:
    """A copy of the policy as it starts, with its own weights where the policy's are trained."""

    def __init__(self, kind: Kind, policy: nn.Module) -> None:
        self.kind = kind
        self._own = [name for name, weight in policy.named_parameters() if weight.requires_grad]
        self.model = frozen_copy(policy)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Put back the weights that :meth:`moved` gave, as whole tensors."""
        mine = local_weights(self.model)
        for name in self._own:
            fill_weight(mine[name], weights[name])

    def moved(self) -> Mapping[str, Tensor]:
        """The weights that differ from the start's, for a checkpoint."""
        mine = local_weights(self.model)
        return {name: mine[name].detach() for name in self._own}


class Moving(Changing):
    """A reference that follows the policy: TR-DPO (Gorbatovski et al., 2024, arXiv 2404.09656).

    After every ``every``-th optimizer step, ref ← α·policy + (1 − α)·ref over all weights that are trained; α
    = 1 is the paper's hard update, α of 0.5 to 0.6 its soft one, whose interval is the authors' code's.
    """

    def __init__(self, kind: Kind, policy: nn.Module, *, alpha: float = 0.6, every: int | None = 512) -> None:
        if not 0 <= alpha <= 1:
            raise PreferoError(f"alpha of a moving reference lies between 0 and 1, not {alpha}")
        if every is None or every < 1:
            raise PreferoError(f"a moving reference is updated every so many optimizer steps, not {every}")
        self.alpha, self.every = alpha, every
        super().__init__(kind, policy)

    @torch.no_grad()
    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        return self.kind.score(self.model, inputs, signals)

    @torch.no_grad()
    def follow(self, policy: nn.Module, step: int) -> bool:
        """Update after optimizer step ``step`` (from 1), if it is one of those; returns whether it was."""
        if step % self.every:
            return False
        theirs, mine = local_weights(policy), local_weights(self.model)
        for name in self._own:
            now = theirs[name]
            if isinstance(now, DTensor) and not isinstance(mine[name], DTensor):
                now = now.full_tensor()
            mine[name].lerp_(now.to(mine[name].dtype), self.alpha)
        return True


class Trained(Changing):
    """A second policy that the objective trains: its score carries a gradient.

    ``learning_rate`` is its own, None the objective's choice. ``every`` is after how many optimizer steps an
    objective with taking turns compares it with the policy; None or 0 is never.
    """

    def __init__(
        self,
        kind: Kind,
        policy: nn.Module,
        *,
        learning_rate: float | None = None,
        every: int | None = None,
    ) -> None:
        super().__init__(kind, policy)
        self.policy, self.learning_rate, self.every = policy, learning_rate, every
        for weight in self.weights.values():
            weight.requires_grad_()

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, under the names that they have in the policy."""
        own = set(self._own)
        return {name: weight for name, weight in self.model.named_parameters() if name in own}

    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        self.model.train(self.policy.training)
        return self.kind.score(self.model, inputs, signals)


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy that shares the weights which are not trained."""
    fixed = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, fixed).eval().requires_grad_(False)


# Who a model is

ReferenceKind = Literal["auto", "none", "frozen", "cached", "adapters_off", "checkpoint", "moving", "trained"]

Load = Callable[[str], nn.Module]
"""Loads and adapts the model of that name."""


def _long_form(given: Any) -> Any:
    """A reference that is given by its name alone, as keys and values."""
    if given is None or given is False:
        return {"kind": "none"}
    if isinstance(given, str):
        is_kind = given in get_args(ReferenceKind)
        return {"kind": given} if is_kind else {"kind": "checkpoint", "model": given}
    return given


@pydantic_dataclass(frozen=True, config=STRICT)
class ReferenceSpec(Spec):
    """A model other than the policy, as a recipe names it.

    ``auto`` is the policy as it starts: its log-probabilities from the disk cache, or with new adapters the
    policy without them, or a frozen copy where neither serves (adapters that are trained already, a signal
    that needs both models at once); the copy shares all weights that are not trained. ``model`` names another
    checkpoint. ``alpha`` and ``every`` belong to ``moving`` (:class:`~prefero.reference.providers.Moving`),
    ``learning_rate`` and ``every`` to ``trained`` (:class:`~prefero.reference.providers.Trained`). ``every``
    counts optimizer steps: between updates of a moving reference, and between comparisons of a trained model
    with the policy (0 is never). ``cache`` is the folder of the disk cache.
    """

    kind: ReferenceKind = "auto"
    model: str | None = None
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.6
    every: Annotated[int, Field(ge=0, le=10**9)] | None = 512
    cache: Path | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None

    @classmethod
    def named(cls, given: str | Mapping[str, Any] | ReferenceSpec | None) -> ReferenceSpec:
        """A reference as a recipe gives it: a kind or a checkpoint by its name alone, or keys and values."""
        if not isinstance(given, ReferenceSpec | str | Mapping | None):
            raise PreferoError(
                f"a reference is a loaded model, a kind ({', '.join(get_args(ReferenceKind))}), or the name "
                f"of a model, not {given!r:.80}"
            )
        return given if isinstance(given, ReferenceSpec) else cls(**_long_form(given))

    _read = model_validator(mode="before")(_long_form)

    @model_validator(mode="after")
    def _consistent(self) -> ReferenceSpec:
        if self.kind == "moving" and not self.every:
            raise ValueError("a moving reference is updated every so many optimizer steps, at least 1")
        if self.model and self.kind in ("auto", "cached"):
            return self
        if (self.kind == "checkpoint") != bool(self.model):
            raise ValueError(
                "'model' names the checkpoint to measure against, and only kind: checkpoint or cached has one"
            )
        return self


@dataclass(frozen=True)
class Demand:
    """The demand of an objective on a model: ``signals`` of its own, or to be ``compared`` with the policy
    over the full vocabulary. ``exact`` objectives are sums over examples, ``redrawn`` says why a model of
    this kind is scored again in every epoch, if it is."""

    signals: frozenset = frozenset()
    compared: bool = False
    exact: bool = True
    redrawn: str = ""

    @property
    def live(self) -> str | None:
        """The reason why the disk cache cannot serve it, if it cannot."""
        if self.compared:
            return "the objective compares its next-token distributions with the policy's"
        if self.redrawn:
            return self.redrawn
        if self.signals:
            return f"the objective reads {', '.join(sorted(signal.name for signal in self.signals))} of it"
        return None


@dataclass(frozen=True)
class Adapters:
    """The policy's adapters: whether there are any, and whether it is the same model without them."""

    there: bool = False
    neutral: bool = False


def adapters_of(policy: nn.Module) -> Adapters:
    """Adapters are known to be neutral if they are new low-rank ones: their second factor is 0."""
    if not adapter_layers(policy):
        return Adapters()
    trained = [(name, weight) for name, weight in policy.named_parameters() if weight.requires_grad]
    low_rank = all("lora_" in name for name, _ in trained)
    # fixed ones count as well: an adapter that was loaded to be read only is no neutral one
    factors = [
        weight for name, weight in policy.named_parameters() if "lora_B" in name or "lora_embedding_B" in name
    ]
    whole = any(isinstance(module, ModulesToSaveWrapper) for module in policy.modules())
    return Adapters(True, low_rank and not whole and all(not factor.any() for factor in factors))


def chosen_kind(name: str, spec: ReferenceSpec, demand: Demand, adapters: Adapters) -> ReferenceKind:
    """The kind that serves a model, also where it is ``auto``. Raises :class:`PreferoError` for one that
    cannot."""
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


# Who serves it


@dataclass(frozen=True)
class CachedModel:
    """Log-probabilities out of the cache, and the model that fills it, inside ``context``."""

    logps: CachedLogps
    load: Callable[[], nn.Module]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass
class References:
    """The auxiliary models by name: ``providers`` are scored, those of ``cached`` are looked up."""

    providers: dict[str, Provider] = field(default_factory=dict)
    cached: dict[str, CachedModel] = field(default_factory=dict)
    moving: dict[str, Moving] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)


def resolve(
    demands: Mapping[str, Demand],
    specs: Mapping[str, ReferenceSpec],
    kind: Kind,
    policy: nn.Module,
    load: Load,
    *,
    precision: str = "",
) -> References:
    """Choose what serves each model that the objective reads. Called with the policy as it starts."""
    result = References()
    adapters = adapters_of(policy)
    for name, demand in demands.items():
        spec = specs.get(name, ReferenceSpec())
        match chosen_kind(name, spec, demand, adapters):
            case "cached" if spec.model is not None:
                result.cached[name] = _cached_checkpoint(spec, spec.model, kind, load, precision)
            case "cached":
                result.cached[name] = _cached_policy(spec, policy, adapters, kind, precision)
            case "adapters_off":
                result.providers[name] = AdaptersOff(kind, policy)
            case "moving":
                moving = Moving(kind, policy, alpha=spec.alpha, every=spec.every)
                result.providers[name] = result.moving[name] = moving
            case "trained":
                trained = Trained(kind, policy, learning_rate=spec.learning_rate, every=spec.every)
                result.providers[name] = result.trained[name] = trained
            case "checkpoint":
                assert spec.model is not None
                result.providers[name] = Frozen(kind, load(spec.model))
            case _:
                result.providers[name] = Frozen(kind, frozen_copy(policy))
    return result


def _cached_policy(
    spec: ReferenceSpec, policy: nn.Module, adapters: Adapters, kind: Kind, precision: str
) -> CachedModel:
    precision += kind.scored_apart(policy)
    fingerprint = model_fingerprint(policy, adapters=not adapters.neutral, precision=precision)
    store = open_store(fingerprint, spec.cache, {"model": kind.model_name})
    context = partial(adapters_off, policy) if adapters.neutral else nullcontext
    return CachedModel(CachedLogps(store), lambda: policy, context)


def _cached_checkpoint(spec: ReferenceSpec, name: str, kind: Kind, load: Load, precision: str) -> CachedModel:
    held = [load(name)]  # from the look at its weights until it has filled the cache
    precision += kind.scored_apart(held[0])
    store = open_store(model_fingerprint(held[0], precision=precision), spec.cache, {"model": name})
    return CachedModel(CachedLogps(store), lambda: held.pop() if held else load(name))


def fill_cache(
    references: References,
    kind: Kind,
    examples: Sequence[TokenExample],
    *,
    tokens_per_row: int,
    device: torch.device,
    share: CacheShare,
    progress: Progress | None = None,
) -> None:
    """Score the cells of ``examples`` that the caches lack, with the models that the caches belong to."""
    for name, cached in references.cached.items():
        if cached.logps.lacking(examples):
            with cached.context():
                cached.logps.fill(
                    kind,
                    cached.load(),
                    examples,
                    tokens_per_row=tokens_per_row,
                    device=device,
                    share=share,
                    progress=None if progress is None else partial(progress, desc=f"scoring with the {name}"),
                )
