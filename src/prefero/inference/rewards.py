"""What an objective says of responses outside of training: its reward, or any quantity, by a head that it
learned or by log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefero.data.examples import Example, Examples
from prefero.data.packing import next_fit
from prefero.errors import PreferoError
from prefero.models.kind import Kind, Reading
from prefero.models.loading import kind_of
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.objectives.compare import Objective, primary
from prefero.objectives.needs import dry_run, model_names
from prefero.objectives.quantities import Quantity
from prefero.objectives.reductions import Term
from prefero.training.batches import Collator, Draw
from prefero.training.step import Scorer, to_device


def rewards(
    objective: Objective,
    model: nn.Module,
    examples: Sequence[Example],
    processor: Any,
    *,
    models: Mapping[str, nn.Module] | None = None,
    max_length: int | None = None,
    tokens_per_row: int = 4096,
) -> list[Float[Tensor, " response"]]:
    """The reward that a method learned, of every response of every example.

    With a head it is the head's: ::

        objective = prefero.load_objective("runs/dph/model")
        best = rewards(objective, model, examples, tokenizer)[0].argmax()

    Without one it is mostly a multiple of the log-ratio to ``models["reference"]``. Arguments as for
    :func:`values`.

    Raises:
        PreferoError: as :func:`values` does, and for an objective that compares no rewards.
    """
    compared = primary(objective)
    if compared is None:
        raise PreferoError(
            f"{objective.key or 'the objective'} compares no rewards that responses could have"
        )
    return values(
        compared.reward,
        model,
        examples,
        processor,
        models=models,
        max_length=max_length,
        tokens_per_row=tokens_per_row,
    )


def values(
    quantity: Quantity,
    model: nn.Module,
    examples: Sequence[Example],
    processor: Any,
    *,
    models: Mapping[str, nn.Module] | None = None,
    max_length: int | None = None,
    tokens_per_row: int = 4096,
) -> list[Float[Tensor, "response *rest"]]:
    """What a quantity gives the responses of each example, without a gradient, in the order of the examples.

    A response is tokenised as in training, with its end token, where the state of a whole response is read.
    The quantity moves to the model's device. A quantity that addresses roles needs examples that have them.

    Args:
        quantity: a number for every response, such as an objective's reward, or for every token, or vectors.
        model: the policy.
        models: other models that the quantity reads, by name.
        processor: its tokenizer, or what else belongs to its kind (:mod:`prefero.kinds`).
        max_length: most tokens of a prompt with its response, by default as in training.
        tokens_per_row: most tokens of one forward pass.

    Raises:
        PreferoError: a model or an annotation is missing that the quantity reads.
    """
    needs, others = dry_run(_Reading(quantity)), dict(models or {})
    if missing := model_names(needs) - set(others):
        raise PreferoError(
            f"the quantity reads {' and '.join(sorted(missing))}, besides the policy: give it in "
            f"models={{{', '.join(f'{name!r}: …' for name in sorted(missing))}}}"
        )
    kind = kind_of("auto", model, processor)
    kind.check(needs)
    data = kind.read(Examples(examples), needs, Reading(max_length=max_length))
    rows = kind.rows(data, kind.adapt(model))
    device = next(model.parameters()).device
    scorer = Scorer(kind, needs, {name: _Given(kind, others[name]) for name in model_names(needs)})
    collate = Collator(kind, needs.columns, views=needs.views)
    found: dict[int, Tensor] = {}
    everything = [model, *others.values(), quantity.to(device)]
    training = [one.training for one in everything]
    try:
        for one in everything:
            one.eval()
        costs = [rows.cost([index]) for index in range(len(data))]
        for row in next_fit(range(len(data)), costs, tokens_per_row):
            collated = to_device(collate([(Draw(index, 0), data[index]) for index in row]), device)
            with torch.no_grad():
                numbers = quantity(scorer(model, collated)).cpu()
            for place, index in enumerate(row):
                found[index] = numbers[place, : len(data[index].lengths)]
    finally:
        for one, was in zip(everything, training, strict=True):
            one.train(was)
    return [found[index] for index in range(len(data))]


class _Reading(Objective):
    """An objective that only touches what a quantity reads."""

    def __init__(self, quantity: Quantity) -> None:
        super().__init__()
        self.quantity = quantity

    def forward(self, batch: PreferenceBatch) -> list[Term]:
        self.quantity(batch)
        return []


@dataclass(frozen=True)
class _Given:
    """A model that is scored as it is."""

    kind: Kind
    model: nn.Module

    def score(self, inputs: Any, signals: frozenset[Signal]) -> dict[str, TokenLogps]:
        return self.kind.score(self.model, inputs, signals)
