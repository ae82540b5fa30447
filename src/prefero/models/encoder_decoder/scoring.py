"""Examples as rows of an encoder and rows of a decoder: prompts and responses, each once, scored inside one
call of the model as forests are (:mod:`prefero.models.causal.scoring`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from prefero.data.packing import CellIndex, OnDevice, by_view
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.forward import Adapted, ScoringPass, StateRead
from prefero.models.causal.selfcheck import FAILURES, TOLERANCE, summary
from prefero.models.loading import evaluating

IGNORED = -100
"""Stands in labels where there is no token, as transformers has it."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderDecoderRows(OnDevice):
    """Some examples, views included, as rows of an encoder and rows of a decoder, each once.

    ``prompt_of`` is the encoder row of every decoder row. ``labels`` are the responses, one place wider than
    the longest, :data:`IGNORED` beyond their ends. A token is predicted at its place in the flattened
    ``labels``, and read by the decoder at the next one. ``scored`` are such places, each once, and ``cells``
    (``""``: the examples themselves) say which of them, and which states, belong to which response.
    """

    prompts: Int[Tensor, "prompt position"]
    there: Bool[Tensor, "prompt position"]
    prompt_of: Int[Tensor, "row"]
    labels: Int[Tensor, "row place"]
    scored: Int[Tensor, "scored"]
    cells: Mapping[str, CellIndex]

    def __len__(self) -> int:
        """The places that go through the network, of prompts and of responses."""
        return self.prompts.numel() + self.labels.numel()

    @property
    def parent(self) -> Int[Tensor, "scored"]:
        """The place at which each scored token is predicted."""
        return self.scored

    @property
    def slot(self) -> Int[Tensor, "scored"]:
        """The readout row of each scored token: its own."""
        return torch.arange(len(self.scored), device=self.scored.device)

    @property
    def target(self) -> Int[Tensor, "scored"]:
        """The scored tokens."""
        return self.labels.flatten()[self.scored]


def arrange(examples: Sequence[TokenExample]) -> EncoderDecoderRows:
    """Rows for these examples. Every example needs the views that the first one has."""
    views = by_view(examples)
    cells = [cell for rows in views.values() for row in rows for cell in row]

    prompts: dict[bytes, int] = {}
    decoded: dict[tuple[int, bytes], int] = {}
    row_of = []
    for cell in cells:
        context, response = (np.asarray(ids, np.int64).tobytes() for ids in (cell.context, cell.response))
        prompt = prompts.setdefault(context, len(prompts))
        row_of.append(decoded.setdefault((prompt, response), len(decoded)))
    contexts = [np.frombuffer(prompt, np.int64) for prompt in prompts]
    responses = [np.frombuffer(response, np.int64) for _, response in decoded]
    labels = _padded(responses, 1 + max(map(len, responses)), IGNORED)

    wanted = np.zeros(labels.shape, bool)
    for cell, row in zip(cells, row_of, strict=True):
        wanted[row, : len(cell.response)] |= True if cell.scored is None else cell.scored
    scored = np.flatnonzero(wanted)
    position = np.full(wanted.size, -1)
    position[scored] = np.arange(len(scored))
    rows_in_order = iter(row_of)
    places = {
        name: _places(rows, rows_in_order, position.reshape(labels.shape)) for name, rows in views.items()
    }

    width = max(map(len, contexts))
    lengths = np.array([len(context) for context in contexts])
    return EncoderDecoderRows(
        prompts=torch.from_numpy(_padded(contexts, width, 0)),
        there=torch.from_numpy(np.arange(width) < lengths[:, None]),
        prompt_of=torch.tensor([prompt for prompt, _ in decoded]),
        labels=torch.from_numpy(labels),
        scored=torch.from_numpy(scored),
        cells=places,
    )


def _padded(rows: Sequence[Any], width: int, beyond: int) -> Any:
    filled = np.full((len(rows), width), beyond)
    for row, tokens in enumerate(rows):
        filled[row, : len(tokens)] = tokens
    return filled


def _places(rows: Sequence[tuple[Cell, ...]], row_of: Iterator[int], position: Any) -> CellIndex:
    """The places of the cells of a view, whose rows are the next in ``row_of``."""
    shape = len(rows), max(len(cells) for cells in rows)
    longest = max(len(cell.response) for cells in rows for cell in cells)
    index = np.full((*shape, longest), -1)
    last, first = np.zeros((2, *shape), np.int64)
    for example, cells in enumerate(rows):
        for response, cell in enumerate(cells):
            row, length = next(row_of), len(cell.response)
            own = position[row, :length]
            index[example, response, :length] = own if cell.scored is None else np.where(cell.scored, own, -1)
            first[example, response] = row * position.shape[1]
            last[example, response] = first[example, response] + length
    return CellIndex(*(torch.from_numpy(places) for places in (index, last, first)))


READABLE = ("state", "prompt_state", "token_state")
"""The states that a decoder gives."""


def decode(
    model: PreTrainedModel, adapted: Adapted, rows: EncoderDecoderRows, states: Sequence[StateRead] = ()
) -> list[Float[Tensor, "node hidden"]]:
    """Rows for the head at the scored places (hidden states, or logits with ``own_head``), and what each of
    ``states`` reads."""
    # only a state that has read the last token of the longest response needs the place beyond it
    labels = rows.labels if states else rows.labels[:, :-1]
    attention = rows.there.long()
    encoded = model.get_encoder()(input_ids=rows.prompts, attention_mask=attention, return_dict=True)
    memory = encoded.last_hidden_state.index_select(0, rows.prompt_of)
    attention, inputs = attention[rows.prompt_of], shifted(model, labels)
    if adapted.own_head:
        output = type(model).forward(
            model,
            encoder_outputs=BaseModelOutput(last_hidden_state=memory),
            attention_mask=attention,
            decoder_input_ids=inputs,
            use_cache=False,
            return_dict=True,
            **({"output_hidden_states": True} if states else {}),
        )
        read = output.logits
        hidden = output.decoder_hidden_states[-1] if states else read
    else:
        output = model.get_decoder()(
            input_ids=inputs,
            encoder_hidden_states=memory,
            encoder_attention_mask=attention,
            use_cache=False,
            return_dict=True,
        )
        read = hidden = output.last_hidden_state

    def at(values: Tensor, places: Tensor) -> Tensor:
        width = rows.labels.shape[1]
        return values[places.div(width, rounding_mode="floor"), places % width]

    return [at(read, rows.scored), *(at(hidden, state.nodes.flatten()) for state in states)]


def shifted(model: PreTrainedModel, labels: Int[Tensor, "row place"]) -> Int[Tensor, "row place"]:
    """The decoder's input where it is to predict the labels, as the model's family has it."""
    own: Callable[..., Tensor] | None = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        return own(labels=labels)
    start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
    inputs = torch.cat((start, labels[:, :-1]), 1)
    return inputs.masked_fill(inputs == IGNORED, model.config.pad_token_id)


def checked(model: PreTrainedModel) -> Adapted:
    """The way of reading the model's head that gives the model's own numbers. Raises :class:`PreferoError`
    where its own forward with labels fails, or neither way agrees with it."""
    examples = _sample(model)
    rows = arrange(examples).to(model.device)
    reasons = []
    with evaluating(model), torch.no_grad():
        try:
            alone = [_alone(model, cell) for example in examples for cell in example.cells]
        except FAILURES as error:
            raise PreferoError(
                f"{type(model).__name__} cannot be scored: its own forward with labels fails: {error}"
            ) from error
        expected = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)
        for adapted in (Adapted("padded"), Adapted("padded", own_head=True)):
            try:
                logps, *_ = ScoringPass(decode, rows)(model, adapted)
            except torch.OutOfMemoryError:
                raise
            except FAILURES as error:
                reasons.append(summary(error))
                continue
            worst = float((rows.cells[""].gather(logps).flatten(0, 1) - expected).abs().max())
            rounding = 8 * torch.finfo(model.dtype).eps * float(expected.abs().max())
            if worst <= max(TOLERANCE, rounding):
                return adapted
            reasons.append(f"log-probabilities differ by {worst:.1e} from its own forward")
    raise PreferoError(f"{type(model).__name__} cannot be scored: {'; '.join(dict.fromkeys(reasons))}")


def _alone(model: PreTrainedModel, cell: Cell) -> Float[Tensor, " token"]:
    """The log-probabilities of a response by the model's own forward."""
    ids, labels = (torch.from_numpy(part)[None].to(model.device) for part in (cell.context, cell.response))
    logits = type(model).forward(model, input_ids=ids, labels=labels, return_dict=True).logits
    return logits[0].float().log_softmax(-1).gather(-1, labels[0, :, None])[:, 0]


def _sample(model: PreTrainedModel) -> list[TokenExample]:
    """Two prompts with two responses each, of random tokens."""
    generator = np.random.default_rng(0)
    vocabulary = model.config.get_text_config().vocab_size

    def text(length: int) -> Any:
        return generator.integers(vocabulary // 8, vocabulary, length)

    return [
        TokenExample(tuple(Cell(context, text(length)) for length in lengths), {}, number)
        for number, (context, lengths) in enumerate([(text(7), (6, 3)), (text(4), (2, 7))])
    ]
