"""Tabular policies: finitely many prompts and responses, whose probabilities are the parameters.

A response is one token and all responses to a prompt are the vocabulary, so expectations can be exact, and
training can be held against closed forms (:mod:`prefero.theory`). ::

    policy = TabularPolicy.of(table, reference)            # as likely as the reference, at first
    small = TabularPolicy.of(table, reference, features)   # π ∝ π_ref exp(θ·φ): a class that may be too small
    policy.save_pretrained(folder)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from prefero.data.packing import OnDevice, by_view
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.models.head import wide
from prefero.models.signals import LOG_Z, ONE_MODEL, TOP, TWO_MODELS, Meter
from prefero.models.tabular.table import Table
from prefero.objectives.batch import Signal, TokenLogps

ABSENT = -1e30
"""The logit where a prompt has fewer responses than another. Finite, so that 0 · log 0 is 0."""

STATES = ("state", "prompt_state", "token_state")
SIGNALS = (LOG_Z, *ONE_MODEL, *TOP, *TWO_MODELS, *STATES)
"""The signals that a table gives; its distributions are those of whole responses."""


class TabularConfig(PreTrainedConfig):
    """``responses`` has a list for every prompt; ``features`` is their number, None for free logits."""

    model_type = "prefero_tabular"
    prefero_kind = "tabular"

    def __init__(
        self,
        prompts: Sequence[str] = (),
        responses: Sequence[Sequence[str]] = (),
        features: int | None = None,
        **settings: Any,
    ) -> None:
        self.prompts, self.features = list(prompts), features
        self.responses = [list(some) for some in responses]
        super().__init__(**settings)

    @property
    def table(self) -> Table:
        return Table(tuple(self.prompts), tuple(map(tuple, self.responses)))


@dataclass
class TabularOutput(ModelOutput):
    """``logits`` of all responses to each prompt that was asked for; :data:`ABSENT` beyond the last."""

    logits: Tensor | None = None


class TabularPolicy(PreTrainedModel):
    """π(y|x) ∝ exp(o(x, y) + θ(x, y)), or exp(o(x, y) + θ·φ(x, y)) in a class with features.

    The offset o is fixed and θ starts at 0, so the offset's own distribution is the start.
    """

    config_class = TabularConfig
    config: TabularConfig
    main_input_name = "prompts"
    base_model_prefix = "table"
    offset: Tensor
    features: Tensor

    def __init__(self, config: TabularConfig) -> None:
        super().__init__(config)
        table = config.table
        shape = (len(table.prompts), table.width)
        offset = torch.full(shape, ABSENT)
        for prompt, responses in enumerate(table.responses):
            offset[prompt, : len(responses)] = 0
        self.register_buffer("offset", offset)
        if config.features is None:
            self.theta = nn.Parameter(torch.zeros(shape))
        else:
            self.theta = nn.Parameter(torch.zeros(config.features))
            self.register_buffer("features", torch.zeros(*shape, config.features))
        self.post_init()

    @classmethod
    def of(
        cls,
        table: Table,
        probabilities: Float[Tensor, "prompt response"] | None = None,
        features: Float[Tensor, "prompt response feature"] | None = None,
    ) -> TabularPolicy:
        """The policy with these probabilities (uniform ones, if None) and at most these directions to move
        in, in the tensors' precision. Raises :class:`PreferoError` for other shapes than the table's, and no
        probabilities."""
        number = None if features is None else features.shape[-1]
        policy = cls(TabularConfig(table.prompts, table.responses, number))
        shape = tuple(policy.offset.shape)
        if probabilities is not None:
            there = policy.offset > ABSENT
            _refuse_shape("probabilities", probabilities, shape)
            sums = torch.where(there, probabilities, 0).sum(-1)
            if bool((probabilities[there] <= 0).any()) or not torch.allclose(sums, torch.ones_like(sums)):
                raise PreferoError(
                    "the probabilities of the responses to a prompt are positive and add up to 1: a response "
                    "that never occurs cannot be learned about"
                )
            nn.Module.to(policy, probabilities.dtype)
            policy.offset.copy_(torch.where(there, probabilities.log(), ABSENT))
        if features is not None:
            _refuse_shape("features", features, (*shape, features.shape[-1]))
            nn.Module.to(policy, torch.promote_types(features.dtype, policy.dtype))
            policy.features.copy_(features)
        return policy

    @property
    def table(self) -> Table:
        return self.config.table

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing is drawn: the start is the offset's."""

    def forward(self, prompts: Int[Tensor, "*place"], **_: Any) -> TabularOutput:
        moved = self.theta[prompts] if self.config.features is None else self.features[prompts] @ self.theta
        return TabularOutput(self.offset[prompts] + moved)

    def probabilities(self) -> Float[Tensor, "prompt response"]:
        """π(y|x) of all responses to all prompts; 0 beyond the last response of a prompt."""
        logits = self(torch.arange(len(self.table.prompts), device=self.offset.device)).logits
        return wide(logits).softmax(-1)


def _refuse_shape(what: str, given: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(given.shape) != shape:
        raise PreferoError(
            f"the {what} have the shape {tuple(given.shape)}; the table is {shape}: prompts, responses"
            f"{', features' if len(shape) == 3 else ''}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Places(OnDevice):
    """The places of the responses of one view: ``prompt`` in the micro-batch's prompts, ``response`` in the
    prompt's responses; 0 where an example has fewer responses than others."""

    prompt: Int[Tensor, "example response"]
    response: Int[Tensor, "example response"]
    there: Bool[Tensor, "example response"]


@dataclass(frozen=True, slots=True, eq=False)
class TableBatch(OnDevice):
    """Some examples, views included: the prompts that they have, each once, and the places of their
    responses. ``size`` is the table's: prompts and responses to each."""

    prompts: Int[Tensor, " prompt"]
    views: Mapping[str, Places]
    size: tuple[int, int]

    def __len__(self) -> int:
        return sum(int(places.there.sum()) for places in self.views.values())


def arrange(examples: Sequence[TokenExample], table: Table) -> TableBatch:
    """A micro-batch of examples from :func:`prefero.models.tabular.table.look_up`."""
    place_of: dict[int, int] = {}
    arranged = {}
    for name, examples_cells in by_view(examples).items():
        shape = len(examples_cells), max(map(len, examples_cells))
        places, there = np.zeros((2, *shape), np.int64), np.zeros(shape, bool)
        for example, cells in enumerate(examples_cells):
            for number, cell in enumerate(cells):
                prompt, response = int(cell.context[0]), int(cell.response[0])
                place = place_of.setdefault(prompt, len(place_of))
                places[:, example, number] = place, table.places[prompt, response]
            there[example, : len(cells)] = True
        arranged[name] = Places(*map(torch.from_numpy, (*places, there)))
    return TableBatch(torch.tensor(list(place_of)), arranged, (len(table.prompts), table.width))


def score(
    model: nn.Module,
    inputs: TableBatch,
    signals: frozenset[Signal] = frozenset(),
    others: Mapping[str, Tensor] | None = None,
) -> dict[str, TokenLogps]:
    """Log-probabilities and signals of the responses of a micro-batch, by view, in one call of the (possibly
    wrapped) model; every response is one token. ``others`` are logits of second models for the prompts. Of
    the states, which are indicators, ``state`` tells prompt and response and the others the prompt alone."""
    logits = wide(model(prompts=inputs.prompts).logits)
    log_z = logits.logsumexp(-1)
    logps = logits - log_z[:, None]
    ordered = sorted(signals, key=repr)
    measured = [signal for signal in ordered if signal.name not in STATES]
    against = {name: lambda start, stop, of=of: of[start:stop] for name, of in (others or {}).items()}
    numbers = dict(zip(measured, Meter(tuple(measured), against)(0, logits, log_z), strict=True))

    def view(places: Places) -> TokenLogps:
        given = {signal: _placed(numbers[signal][places.prompt], places) for signal in measured}
        for signal in ordered:
            if signal.name in STATES:
                given[signal] = _indicator(signal, inputs, places).to(logits)
        own = logps[places.prompt, places.response]
        return TokenLogps(_placed(own, places), places.there[..., None], given)

    return {name: view(places) for name, places in inputs.views.items()}


def _placed(values: Float[Tensor, "example response"], places: Places) -> Float[Tensor, "example response 1"]:
    return torch.where(places.there, values, 0)[..., None]


def _indicator(
    signal: Signal, inputs: TableBatch, places: Places
) -> Float[Tensor, "example response *token hidden"]:
    prompts, responses = inputs.size
    which = inputs.prompts[places.prompt]
    if signal.name == "state":
        which = which * responses + places.response
    indicator = F.one_hot(which, prompts * responses) * places.there[..., None]
    return indicator[:, :, None] if signal.name == "token_state" else indicator
