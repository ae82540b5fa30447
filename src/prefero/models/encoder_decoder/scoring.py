"""Examples as rows of an encoder and rows of a decoder: prompts and responses, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from prefero.data.packing import CellIndex
from prefero.data.trie import Cell, TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.forward import Adapted, OtherRows, StateRead, output_head
from prefero.models.causal.scoring import ATTRIBUTE, by_view, install
from prefero.models.head import read_head
from prefero.models.loading import innermost, zero_dropout
from prefero.models.selfcheck import TOLERANCE
from prefero.models.signals import STATES, Meter, SecondModel, check_signals
from prefero.objectives.batch import Signal, TokenLogps

IGNORED = -100
"""Stands in labels where there is no token, as transformers has it."""


@dataclass(frozen=True, slots=True, eq=False)
class EncoderDecoderRows:
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
        """What goes through the network: places of prompts and of responses."""
        return self.prompts.numel() + self.labels.numel()

    @property
    def parent(self) -> Int[Tensor, "scored"]:
        """Where the log-probability of each scored token is predicted."""
        return self.scored

    @property
    def target(self) -> Int[Tensor, "scored"]:
        """The scored tokens."""
        return self.labels.flatten()[self.scored]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> EncoderDecoderRows:
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        cells = {view: index.to(device, non_blocking) for view, index in self.cells.items()}
        return replace(self, **moved, cells=cells)


def arrange(examples: Sequence[TokenExample]) -> EncoderDecoderRows:
    """Rows for these examples. Every example needs the views that the first one has."""
    views: dict[str, list[tuple[Cell, ...]]] = {"": [example.cells for example in examples]}
    for name in examples[0].views:
        views[name] = [example.views[name] for example in examples]
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
    following = iter(row_of)
    places = {name: _places(rows, following, position.reshape(labels.shape)) for name, rows in views.items()}

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
    """Where the cells of a view are, which are the next in ``row_of``."""
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


@dataclass(frozen=True, slots=True, eq=False)
class ScoreRows:
    """Log-probabilities of the scored tokens, what ``states`` read, and signals of the scored places."""

    rows: EncoderDecoderRows
    signals: tuple[Signal, ...]
    states: tuple[StateRead, ...]
    others: Mapping[str, OtherRows]

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> tuple[Tensor, ...]:
        rows = self.rows
        read, *states = decode(model, adapted, rows, self.states)
        meter = Meter(
            self.signals, {name: other.logits(model, adapted) for name, other in self.others.items()}
        )
        slot = torch.arange(len(read), device=read.device)
        logps, signals = read_head(*output_head(model, adapted), read, slot, rows.target, meter)
        return logps, *states, *signals


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """What the head reads at the scored places: the part of a second model that costs a forward."""

    rows: EncoderDecoderRows

    def __call__(self, model: PreTrainedModel, adapted: Adapted) -> Tensor:
        return decode(model, adapted, self.rows)[0]


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
        found = output.logits
        hidden = output.decoder_hidden_states[-1] if states else found
    else:
        output = model.get_decoder()(
            input_ids=inputs,
            encoder_hidden_states=memory,
            encoder_attention_mask=attention,
            use_cache=False,
            return_dict=True,
        )
        found = hidden = output.last_hidden_state

    def at(values: Tensor, places: Tensor) -> Tensor:
        width = rows.labels.shape[1]
        return values[places.div(width, rounding_mode="floor"), places % width]

    return [at(found, rows.scored), *(at(hidden, read.nodes.flatten()) for read in states)]


def shifted(model: PreTrainedModel, labels: Int[Tensor, "row place"]) -> Int[Tensor, "row place"]:
    """What the decoder reads where it is to predict the labels, as the model's family has it."""
    own: Callable[..., Tensor] | None = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        return own(labels=labels)
    start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
    inputs = torch.cat((start, labels[:, :-1]), 1)
    return inputs.masked_fill(inputs == IGNORED, model.config.pad_token_id)


def adapt(model: nn.Module, *, keep_dropout: bool = False) -> None:
    """Make an encoder–decoder language model score rows.

    Call it after adapters are added and before the model is wrapped for distribution or mixed precision. The
    way it will be scored is checked on the model itself, against its own forward with labels, one response at
    a time. A second call changes nothing. Dropout is set to 0 unless ``keep_dropout``.

    Raises:
        PreferoError: for what is no encoder–decoder language model, or gives other numbers than its forward.
    """
    inner = innermost(model)
    if not inner.config.is_encoder_decoder:
        raise PreferoError(
            f"{type(inner).__name__} has no encoder: it reads prompt and response as one text, which "
            "prefero.models.causal.scoring scores; encoder–decoders are loaded with AutoModelForSeq2SeqLM"
        )
    if ATTRIBUTE in vars(inner):
        return
    if not keep_dropout:
        zero_dropout(model)
    adapted = _checked(inner)
    install(inner)
    vars(inner)[ATTRIBUTE] = adapted


def score(
    model: nn.Module,
    rows: EncoderDecoderRows,
    signals: frozenset[Signal] = frozenset(),
    *,
    others: Mapping[str, nn.Module | SecondModel] | None = None,
) -> dict[str, TokenLogps]:
    """Score every view of some rows in one call of the (possibly wrapped) model.

    As :func:`prefero.models.causal.scoring.score`, with the signals of :mod:`prefero.models.signals` except
    states after every layer and mean activations. Second models are encoder–decoders with the same
    vocabulary.

    Raises:
        PreferoError: for signals that there are not, or that lack their second model.
    """
    adapt(model)
    seconds = {
        name: other if isinstance(other, SecondModel) else SecondModel(other)
        for name, other in (others or {}).items()
    }
    check_signals(tuple(signals), seconds)
    ordered = sorted(signals, key=repr)
    tokens = tuple(signal for signal in ordered if signal.name not in STATES)
    states = [signal for signal in ordered if signal.name in STATES]
    if missing := [signal.name for signal in states if signal.name not in READABLE]:
        raise PreferoError(
            f"an encoder–decoder gives no signal {missing[0]!r}; of states, there are {', '.join(READABLE)}"
        )
    reads = tuple(StateRead.of(signal, rows, cells) for cells in rows.cells.values() for signal in states)
    wanted = sorted({str(signal.against) for signal in tokens if signal.against})
    compared = {name: _other_rows(seconds[name], rows) for name in wanted}
    scoring = ScoreRows(rows, tokens, reads, compared)
    logps, *given = model(input_ids=rows.prompts, scoring=scoring)
    inside, measured = given[: len(reads)], given[len(reads) :]
    shaped = [read.shaped(values) for read, values in zip(reads, inside, strict=True)]
    return by_view(rows.cells, logps, dict(zip(tokens, measured, strict=True)), states, shaped)


def _other_rows(second: SecondModel, rows: EncoderDecoderRows) -> OtherRows:
    adapt(second.model)
    with torch.no_grad(), second.context():
        read = second.model(input_ids=rows.prompts, scoring=ScoredRows(rows))
    return OtherRows(second.model, innermost(second.model), second.context, rows.prompts, read)


def _checked(model: PreTrainedModel) -> Adapted:
    """How the model's head is to be read, if it then gives the model's own numbers."""
    examples = _some(model)
    rows = arrange(examples).to(model.device)
    reasons = []
    with _evaluating(model):
        try:
            alone = [_alone(model, cell) for one in examples for cell in one.cells]
        except (ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise PreferoError(
                f"{type(model).__name__} cannot be scored: its own forward with labels fails: {error}"
            ) from error
        expected = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)
        for adapted in (Adapted("padded"), Adapted("padded", own_head=True)):
            try:
                logps, *_ = ScoreRows(rows, (), (), {})(model, adapted)
            except torch.OutOfMemoryError:
                raise
            except (ValueError, TypeError, RuntimeError, AttributeError, KeyError, IndexError) as error:
                reasons.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
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


def _some(model: PreTrainedModel) -> list[TokenExample]:
    generator = np.random.default_rng(0)
    vocabulary = model.config.get_text_config().vocab_size

    def text(length: int) -> Any:
        return generator.integers(vocabulary // 8, vocabulary, length)

    return [
        TokenExample(tuple(Cell(context, text(length)) for length in lengths), {}, number)
        for number, (context, lengths) in enumerate([(text(7), (6, 3)), (text(4), (2, 7))])
    ]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
