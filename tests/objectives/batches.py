"""Random batches for any method: whatever its dry run says that it reads, ragged and with absent
candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from prefero.data.schema import SCHEMA
from prefero.objectives import Method, Needs, Objective, PreferenceBatch, TokenLogps, dry_run, method, methods
from prefero.objectives.needs import materialise, trailing_sizes

ARGUMENTS: Mapping[str, Mapping[str, object]] = {}
"""Arguments without a default."""

KEYS = sorted(methods())


def build(key: str, **arguments: object) -> Objective:
    return ready(method(key, **{**ARGUMENTS.get(key, {}), **arguments}))


def ready(objective: Objective) -> Objective:
    """The objective in float64, with its heads made, always the same."""
    return materialise(objective).double()


def entry(key: str) -> Method:
    return methods()[key]


def random_batch(
    needs: Needs, *, examples: int = 6, spread: float = 1.0, seed: int = 0, complete: bool = False
) -> PreferenceBatch:
    """A batch in float64. Log-probabilities have ``spread``; lists have two to four responses, all four if
    ``complete``."""
    numbers = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=numbers, dtype=torch.float64)

    responses, tokens = len(needs.roles) or 4, 5
    lengths = torch.randint(1, tokens + 1, (examples, responses), generator=numbers)
    if not needs.roles and not complete:
        sizes = torch.randint(2, responses + 1, (examples, 1), generator=numbers)
        lengths = torch.where(torch.arange(responses) < sizes, lengths, 0)
    mask = torch.arange(tokens) < lengths[..., None]
    columns = {name: column(name, examples, responses, tokens, numbers) for name in sorted(needs.columns)}

    def scored(signals: Sequence) -> TokenLogps:
        logps = torch.where(mask, -spread * uniform(*mask.shape), 0)
        measured = {}
        for signal in sorted(signals, key=repr):
            shape = mask.shape if signal.axes == "example response token" else mask.shape[:2]
            measured[signal] = uniform(*shape, *trailing_sizes(signal)).requires_grad_()
        return TokenLogps(logps, mask, measured)

    models = {name: scored(needs.models[name]) for name in sorted(needs.models)}
    policy = models["policy"]
    models["policy"] = replace(policy, logps=policy.logps.requires_grad_())
    views = {
        name: random_batch(view, examples=examples, spread=spread, seed=seed + 1, complete=True)
        for name, view in needs.views.items()
    }
    return PreferenceBatch(models, columns, needs.roles, views, progress=0.5)


def column(name: str, examples: int, responses: int, tokens: int, numbers: torch.Generator) -> Tensor:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=numbers, dtype=torch.float64)

    spec = SCHEMA[name]
    shape = {
        "example": (examples,),
        "example response": (examples, responses),
        "example response token": (examples, responses, tokens),
        "example hidden": (examples, 3),
    }[spec.axes]
    if name == "label":
        # both kinds in every example, so that no part of a batch lacks one
        return torch.tensor([1.0, -1.0]).double().repeat(responses)[:responses].expand(shape).clone()
    if name == "rank":
        return uniform(*shape).argsort(1)
    if name in ("group", "degree"):
        return torch.randint(0, 3, shape, generator=numbers)
    if name in ("segment", "step"):
        # whole runs of tokens, the first of them outside of all
        return (uniform(*shape) < 0.5).cumsum(-1)
    if name == "error_step":
        return torch.randint(1, 3, shape, generator=numbers)
    if spec.dtype == "bool":
        return uniform(*shape) > 0.5
    return uniform(*shape) * (1 if spec.drawn else 4)


_known: dict[str, Needs] = {}


def needs_of(objective: Objective) -> Needs:
    """What the dry run finds, once for each method and arguments."""
    if objective.key is None:
        return dry_run(objective)
    name = repr((objective.key, objective.arguments))
    if name not in _known:
        _known[name] = dry_run(objective)
    return _known[name]


def batch_for(objective: Objective, **options: object) -> PreferenceBatch:
    return random_batch(needs_of(objective), **options)  # type: ignore[arg-type]


def pair_batch(
    chosen: Sequence[float],
    rejected: Sequence[float],
    columns: Mapping[str, Tensor] | None = None,
) -> PreferenceBatch:
    """Pairs of one-token responses with these log-ratios; the reference gives −3 to all of them."""
    ratios = torch.tensor([chosen, rejected], dtype=torch.float64).T[..., None]
    reference = torch.full_like(ratios, -3.0)
    mask = torch.ones_like(ratios, dtype=torch.bool)
    models = {
        "policy": TokenLogps((reference + ratios).requires_grad_(), mask),
        "reference": TokenLogps(reference, mask),
    }
    return PreferenceBatch(models, columns or {})


def leaves(batch: PreferenceBatch) -> list[Tensor]:
    """Everything that the policy gave, in all views."""
    policy = batch.models["policy"]
    own = [
        policy.logps,
        *(policy.signals[signal] for signal in sorted(policy.signals, key=repr)),
    ]
    return [*own, *(leaf for view in batch.views.values() for leaf in leaves(view))]


def slopes(loss: Tensor, batch: PreferenceBatch) -> list[Tensor]:
    """The gradient with respect to everything that the policy gave; 0 where the loss does not read it."""
    found = torch.autograd.grad(loss, leaves(batch), allow_unused=True)
    return [
        torch.zeros_like(leaf) if slope is None else slope
        for leaf, slope in zip(leaves(batch), found, strict=True)
    ]


def slope_of(loss: Tensor, batch: PreferenceBatch) -> Tensor:
    """The gradient with respect to the policy's token log-probabilities."""
    return slopes(loss, batch)[0]


def changed(batch: PreferenceBatch, change) -> PreferenceBatch:
    """Every tensor of the batch and its views through ``change(tensor)``; the policy's stay leaves'
    children."""

    def of(scored: TokenLogps) -> TokenLogps:
        signals = {signal: change(values) for signal, values in scored.signals.items()}
        return TokenLogps(change(scored.logps), change(scored.mask), signals)

    return PreferenceBatch(
        {name: of(scored) for name, scored in batch.models.items()},
        {name: change(values) for name, values in batch.columns.items()},
        batch.roles,
        {name: changed(view, change) for name, view in batch.views.items()},
        batch.progress,
    )


def taken(batch: PreferenceBatch, examples: Sequence[int]) -> PreferenceBatch:
    """Some of the examples, as children of the same leaves."""
    return changed(batch, lambda values: values[list(examples)])
