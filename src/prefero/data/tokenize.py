"""From examples to token ids.

Prompt and response are tokenised apart, so the prompt is the same tokens whichever response follows, and the
same as when the model generates from the prompt alone: no merge crosses the boundary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from prefero.data.arrange import VIEWS, arrange, prompt_of, with_view
from prefero.data.encode import Encoder, Truncation, fit
from prefero.data.examples import Example, Text
from prefero.data.images import ImagePrompts, Pictures, images_of
from prefero.data.render import (
    NOT_PRESERVED,
    ChatTemplate,
    Ending,
    PlainText,
    Rendered,
    Renderer,
    Transcript,
    ending_of,
)
from prefero.data.schema import SCHEMA
from prefero.data.spans import differs, token_values
from prefero.data.summary import DataSummary, summarise
from prefero.data.trie import Annotation, Cell, TokenExample
from prefero.errors import PreferoError

DTYPES = {"float": np.float64, "int": np.int64, "bool": np.bool_}


@dataclass(frozen=True, slots=True, eq=False)
class TokenDataset(Sequence[TokenExample]):
    """Tokenised examples, ready to be packed; ``roles`` names the response axis, ``()`` for candidates."""

    examples: tuple[TokenExample, ...]
    roles: tuple[str, ...]
    summary: DataSummary

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> TokenExample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TokenExample, ...]: ...
    def __getitem__(self, index: int | slice) -> TokenExample | tuple[TokenExample, ...]:
        return self.examples[index]


@dataclass(frozen=True, slots=True)
class _Draft:
    """A response of an example as text, and the prompt before it with the images that it shows."""

    prompt: Text
    ending: Ending
    prompt_text: str
    rendered: Rendered
    images: Pictures


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The responses of an example as ``drafts``, as ``whole`` cells, and as ``cells`` that fit, for which
    ``lost`` tokens were dropped."""

    drafts: Sequence[_Draft]
    whole: tuple[Cell, ...]
    cells: tuple[Cell, ...]
    lost: int


def tokenize(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    roles: tuple[str, ...],
    columns: Collection[str] = frozenset(),
    max_length: int | None = None,
    views: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    seed: int = 0,
    for_method: str = "",
    images: ImagePrompts | None = None,
    canvas: int | None = None,
) -> TokenDataset:
    """``examples``, arranged as ``roles`` and ``columns`` ask, as token ids of ``tokenizer``.

    ``max_length`` bounds prompt and longest response, in tokens. Where that is too much, the oldest turns of
    the prompt are dropped, then its oldest tokens; a response is cut at its end (and loses its end token)
    only if it leaves the prompt no token. ``views`` maps readings under other responses or prompts
    (:data:`prefero.data.arrange.VIEWS`, drawn with ``seed``, and :data:`prefero.data.schema.OTHER_PROMPTS`)
    to the roles that are read there, ``()`` for all. ``images`` reads prompts that show some. End tokens
    fill a ``canvas`` of so many tokens, if there is one, and are annotated as the first of them is.

    Raises:
        PreferoError: a missing role or column; a tokenizer without an end token, or an empty prompt without a
            start token; a chat template that refuses a row or cannot be taken apart; ``max_length`` below 2;
            images that the model does not see, cannot be opened, or do not fit; a response longer than the
            canvas.
    """
    if max_length is not None and max_length < 2:
        raise PreferoError(f"max_length is {max_length}; expected at least 2 tokens, to read and to score.")
    arranged = arrange(examples, roles, columns, for_method=for_method)
    encoder = Encoder(tokenizer, images, canvas)
    truncation = Truncation()
    encoded = _encode(arranged, encoder, max_length, truncation)
    wanted = [name for name in sorted(columns) if not SCHEMA[name].drawn]
    tokenized = []
    for index, (example, own) in enumerate(zip(arranged, encoded, strict=True)):
        annotations = {**columns_of(example, wanted), **_token_columns(example, wanted, own, encoder)}
        tokenized.append(TokenExample(own.cells, annotations, index, truncated=own.lost))
    for view, read in views.items():
        if view in VIEWS:
            others = VIEWS[view](tokenized, max_length, seed)
        else:
            under = [_under(example, view, for_method) for example in arranged]
            others = [own.cells for own in _encode(under, encoder, max_length, Truncation())]
        tokenized = with_view(tokenized, view, others, [roles.index(role) for role in read])
    if images is not None:
        for index, tokens in enumerate(tokenized):
            shown = images.shown([cell.context for cell in tokens.all_cells])
            tokenized[index] = replace(tokens, images=shown)
    exact = all(draft.rendered.exact for own in encoded for draft in own.drafts)
    notes = () if exact else (NOT_PRESERVED,)
    summary = summarise(arranged, tokenized, roles, max_length, truncation, notes)
    return TokenDataset(tuple(tokenized), roles, summary)


def _under(example: Example, view: str, for_method: str) -> Example:
    """The example with the prompt that it has for a view, and what that shows."""
    prompt = prompt_of(example, view, for_method)
    shown = example.images.get(view, example.images.get("", ()))
    return replace(example, prompt=prompt, images={"": shown})


def _encode(
    examples: Sequence[Example], encoder: Encoder, max_length: int | None, truncation: Truncation
) -> list[_Encoded]:
    """The examples as token ids, their texts encoded all at a time."""
    renderers = [_renderer(example, encoder) for example in examples]
    drafts = [_drafts(example, renderer) for example, renderer in zip(examples, renderers, strict=True)]
    texts = [draft.prompt_text for group in drafts for draft in group if not draft.images]
    texts += [segment.text for group in drafts for draft in group for segment in draft.rendered.segments]
    encoder.learn(texts)
    encoded = []
    for example, renderer, group in zip(examples, renderers, drafts, strict=True):
        before = truncation.tokens
        whole = cells = _cells(example, renderer, group, encoder)
        if max_length is not None:
            cells = _fitted(cells, example, renderer, group, encoder, max_length, truncation)
        encoded.append(_Encoded(group, whole, cells, truncation.tokens - before))
    return encoded


def _renderer(example: Example, encoder: Encoder) -> Renderer:
    if any(example.images.values()) and encoder.images is None:
        raise PreferoError(
            f"{example.origin}: the prompt shows {len(example.images[''])} images, which this model does not "
            "see. Name a vision-language model, or rename the column of images."
        )
    if isinstance(example.prompt, str) and all(isinstance(r.content, str) for r in example.responses):
        return PlainText()
    templates = encoder.tokenizer if encoder.images is None else encoder.images
    return ChatTemplate(templates) if templates.chat_template else Transcript()


def _drafts(example: Example, renderer: Renderer) -> list[_Draft]:
    drafts = []
    shared: tuple[Ending, str] | None = None
    for response in example.responses:
        prompt = example.prompt if response.prompt is None else response.prompt
        if response.prompt is None and shared is not None:
            ending, text = shared
        else:
            ending = ending_of(prompt, example.responses)
            text = renderer.prompt(prompt, example, ending)
            shared = (ending, text) if response.prompt is None else shared
        rendered = renderer.response(prompt, text, response, example, ending)
        drafts.append(_Draft(prompt, ending, text, rendered, images_of(prompt, example)))
    return drafts


def _cells(
    example: Example, renderer: Renderer, drafts: Sequence[_Draft], encoder: Encoder
) -> tuple[Cell, ...]:
    prompts = dict.fromkeys((draft.prompt_text, draft.images) for draft in drafts)
    contexts = {
        (text, images): encoder.context(text, renderer.starts, example.origin, images)
        for text, images in prompts
    }
    return tuple(
        Cell(contexts[draft.prompt_text, draft.images], *encoder.response(draft.rendered, example.origin))
        for draft in drafts
    )


def _fitted(
    cells: tuple[Cell, ...],
    example: Example,
    renderer: Renderer,
    drafts: Sequence[_Draft],
    encoder: Encoder,
    max_length: int,
    truncation: Truncation,
) -> tuple[Cell, ...]:
    def encode(at: int, prompt: Text) -> NDArray[np.int64]:
        text = renderer.prompt(prompt, example, drafts[at].ending)
        return encoder.context(text, renderer.starts, example.origin, images_of(prompt, example))

    prompts = [draft.prompt for draft in drafts]
    fitted = fit(cells, max_length, prompts, encode, encoder.start, truncation, example.origin)
    if any(cell.scored is not None and not cell.scored.any() for cell in fitted):
        raise PreferoError(
            f"{example.origin}: of a response of several turns nothing of the assistant is left within "
            f"max_length = {max_length}. Raise max_length, or remove the row."
        )
    return fitted


def columns_of(example: Example, names: Sequence[str]) -> dict[str, Annotation]:
    """The columns besides those of tokens, as a :class:`TokenExample` has them."""
    columns: dict[str, Annotation] = {}
    for name in names:
        spec = SCHEMA[name]
        if spec.axes == "example response token":
            continue
        if spec.axes == "example response":
            values = [response.columns[name] for response in example.responses]
            columns[name] = np.asarray(values, dtype=DTYPES[spec.dtype])
        elif spec.axes == "example hidden":
            columns[name] = np.asarray(example.columns[name], dtype=np.float64)
        else:
            columns[name] = cast("float", example.columns[name])
    return columns


def _token_columns(
    example: Example, names: Sequence[str], encoded: _Encoded, encoder: Encoder
) -> dict[str, Annotation]:
    """The columns of tokens: made of the whole responses, and as long as the cells that fit."""
    columns: dict[str, Annotation] = {}
    for name in names:
        spec = SCHEMA[name]
        if spec.axes != "example response token":
            continue
        if name == "differs":
            responses = [cell.response for cell in encoded.whole]
            rows: Sequence[NDArray[Any]] = differs(example.roles, responses, encoder.function_words)
        else:
            rows = [
                token_values(name, response, draft.rendered, encoder.offsets, example.origin)
                for response, draft in zip(example.responses, encoded.drafts, strict=True)
            ]
        columns[name] = tuple(
            _as_long(row, len(cell.response)).astype(DTYPES[spec.dtype])
            for row, cell in zip(rows, encoded.cells, strict=True)
        )
    return columns


def _as_long(row: NDArray[Any], length: int) -> NDArray[Any]:
    """``row`` without tokens that were cut off, and with its last value for end tokens that fill a canvas."""
    return np.pad(row[:length], (0, max(length - len(row), 0)), "edge")
