"""From examples to token ids.

Prompt and response are encoded as one text, as the model would read it: a token with any character of the
response belongs to the response. The prompt that the responses of an example share ends before the first
such token of any of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from types import MappingProxyType
from typing import Any, Literal, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from prefero.data.arrange import VIEWS, arrange, prompt_of, with_view
from prefero.data.chat import Writing
from prefero.data.encode import Encoder, Encoding, Ids, check_text
from prefero.data.examples import Example, Examples, Text
from prefero.data.images import ImagePrompts, images_of
from prefero.data.render import Rendered, Renderers, ending_of, with_earlier_turns
from prefero.data.schema import OTHER_PROMPTS, SCHEMA
from prefero.data.spans import READINGS, differs, token_values
from prefero.data.summary import DataSummary, Treatment, summarise
from prefero.data.trie import Annotation, Cell, TokenExample, common, unique_tokens
from prefero.errors import PreferoError, nearest

DTYPES = {"float": np.float64, "int": np.int64, "bool": np.bool_}

TooLong = Literal["cut_response", "keep_recent_prompt", "drop", "error"]
"""Ways to fit an example into ``max_length``; see :func:`tokenize`."""

TOKENIZING = 2
"""The version of how rows become tokens, which stands in the key of the reference cache. Raise it with any
change by which some row gives other token ids, or other tokens that are scored."""

INSTRUCTING = {"system", "developer"}
"""The roles whose turns at the beginning of a conversation are instructions for all of it."""

CHUNK = 512
"""Examples whose texts are encoded together, which is much faster than one by one."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenDataset(Sequence[TokenExample]):
    """Tokenised examples, ready to be packed; ``roles`` names the response axis, ``()`` for candidates.
    ``source`` are the examples that they were made of, in the same order, and ``writing`` is how these were
    written as text."""

    examples: tuple[TokenExample, ...]
    roles: tuple[str, ...]
    summary: DataSummary
    source: Examples
    writing: Writing = field(default_factory=Writing)

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> TokenExample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[TokenExample, ...]: ...
    def __getitem__(self, index: int | slice) -> TokenExample | tuple[TokenExample, ...]:
        return self.examples[index]


def tokenize(
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    roles: tuple[str, ...],
    columns: Collection[str] = frozenset(),
    max_length: int | None = None,
    too_long: TooLong = "cut_response",
    writing: Writing | None = None,
    views: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    seed: int = 0,
    for_method: str = "",
    images: ImagePrompts | None = None,
    canvas: int | None = None,
    apart: bool = False,
) -> TokenDataset:
    """``examples``, arranged as ``roles`` and ``columns`` ask, as token ids of ``tokenizer``.

    Args:
        examples: prompts and responses; an :class:`Examples` that skips bad rows has those left out and
            counted that cannot be tokenised.
        tokenizer: as transformers has it, with a chat template or without.
        roles: the responses to read, in this order; ``()`` for all of them as candidates.
        columns: the annotations to read.
        max_length: the most tokens of a prompt with its longest response.
        too_long: what becomes of an example with more. All but ``"drop"`` (it is left out and counted) and
            ``"error"`` first let the prompt lose its oldest turns. Then ``"cut_response"`` cuts responses at
            their ends, and leaves examples out whose prompt alone is too long; ``"keep_recent_prompt"`` lets
            the prompt lose its oldest tokens, and cuts a response only if it leaves the prompt no token.
        writing: the chat template and its arguments; by default the tokenizer's own, or the training
            template of its family where responses go on behind others' turns, which its own changes.
        views: readings under other responses or prompts (:data:`prefero.data.arrange.VIEWS`, drawn with
            ``seed``, and :data:`prefero.data.schema.OTHER_PROMPTS`), each with the roles that are read there,
            ``()`` for all.
        for_method: the method's name, for messages.
        images: reads prompts that show some.
        canvas: end tokens fill the response up to so many tokens, and are annotated as the first of them is.
        apart: encode responses without their prompts, for models that read these apart.

    Examples whose chosen and rejected responses are the same tokens are left out and counted.

    Raises:
        PreferoError: a missing role or column; a tokenizer without an end token, or an empty prompt without a
            start token; a chat template that refuses a row or cannot be taken apart; ``max_length`` below 2;
            images that the model does not see, cannot be opened, or do not fit; a response longer than the
            canvas; no example is left.
    """
    if too_long not in get_args(TooLong):
        raise PreferoError(
            f"too_long is {too_long!r}{nearest(too_long, get_args(TooLong))}; expected one of "
            f"{', '.join(get_args(TooLong))}"
        )
    if max_length is not None and max_length < 2:
        raise PreferoError(f"max_length is {max_length}; expected at least 2 tokens, to read and to score.")
    arranged = arrange(examples, roles, columns, for_method=for_method)
    encoder = Encoder(tokenizer, images, canvas, apart)
    writing = writing or Writing()
    renderers = Renderers(tokenizer, images, writing, (_as_scored(each, writing) for each in arranged))
    treatment = Treatment(max_length, too_long)
    wanted = [name for name in sorted(columns) if not SCHEMA[name].drawn]
    prompts = [view for view in views if view not in VIEWS]
    prefers = {"chosen", "rejected"} <= set(roles) and not {"tie", "preference"} & set(columns)
    kept: list[Example] = []
    tokenized: list[TokenExample] = []
    for example, draft in zip(arranged, _drafts(arranged, renderers, encoder), strict=True):
        try:
            fitted = _fitted(draft, treatment, renderers, encoder)
            if prefers and _same(fitted.cells[roles.index("chosen")], fitted.cells[roles.index("rejected")]):
                raise LeftOut(SAME_TOKENS)
            others = {
                view: _under(fitted, view, for_method, treatment, renderers, encoder) for view in prompts
            }
            annotations = {**columns_of(example, wanted), **_token_columns(fitted, wanted, encoder)}
        except LeftOut as reason:
            treatment.left_out.setdefault(str(reason), []).append(example.origin)
        except PreferoError as error:
            if not arranged.skips_bad_rows:
                raise
            treatment.skipped.append(str(error))
        else:
            notes = [*fitted.notes, *treatment.cut(example.origin, *fitted.lost)]
            for view, under in others.items():
                cuts = treatment.cut(example.origin, *under.lost)
                notes += [f"{OTHER_PROMPTS[view].field}: {note}" for note in (*under.notes, *cuts)]
            kept.append(example)
            tokenized.append(
                TokenExample(
                    fitted.cells,
                    annotations,
                    len(tokenized),
                    {view: under.cells for view, under in others.items()},
                    truncated=sum(sum(one.lost) for one in (fitted, *others.values())),
                    notes=treatment.noted(notes, example.origin),
                )
            )
    arranged = treatment.applied(arranged, kept)
    for view, read in views.items():
        make = VIEWS.get(view)
        cells = make(tokenized, max_length, seed) if make else [example.views[view] for example in tokenized]
        tokenized = with_view(tokenized, view, cells, [roles.index(role) for role in read])
    if images is not None:
        for index, tokens in enumerate(tokenized):
            shown = images.shown([cell.context for cell in tokens.all_cells])
            tokenized[index] = replace(tokens, images=shown)
    summary = summarise(arranged, tokenized, roles, treatment)
    if renderers.writing.reason:
        summary = replace(summary, notes=(f"template: {renderers.writing.shown}.", *summary.notes))
    return TokenDataset(tuple(tokenized), roles, summary, arranged, renderers.writing)


SAME_TOKENS = "pairs whose two sides are the same tokens"


class LeftOut(Exception):
    """An example is left out; the text is the reason, in the plural."""


def _same(first: Cell, second: Cell) -> bool:
    return all(
        np.array_equal(one, other)
        for one, other in ((first.context, second.context), (first.response, second.response))
    )


# Examples as cells


@dataclass(frozen=True, slots=True)
class _Side:
    """One response behind its prompt, as text and as tokens: ``first`` is the place of the first token of the
    response, and ``scored`` marks those that count."""

    rendered: Rendered
    encoding: Encoding
    begins: Ids
    first: int
    scored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Draft:
    """An example as cells: the response of each begins at the token ``cuts`` of its side. ``given`` is the
    example as it was arranged, and ``example`` with all that is scored in its responses. ``lost`` tokens of
    prompts and of responses did not fit."""

    given: Example
    example: Example
    sides: Sequence[_Side]
    cells: tuple[Cell, ...]
    cuts: Sequence[int]
    lost: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Written:
    """An example whose sides are text; ``starts`` tells of each whether it wants the tokenizer's own
    beginning (BOS)."""

    given: Example
    example: Example
    sides: Sequence[Rendered]
    starts: Sequence[bool]


def _as_scored(example: Example, writing: Writing) -> Example:
    """The example with all that ``writing`` scores in its responses."""
    return with_earlier_turns(example) if writing.score == "all_assistant" else example


def _drafts(examples: Examples, renderers: Renderers, encoder: Encoder) -> Iterator[_Draft | PreferoError]:
    """Every example before anything is cut, or the reason why it cannot be tokenised."""
    for at in range(0, len(examples), CHUNK):
        chunk: list[_Written | PreferoError] = []
        for example in examples.items[at : at + CHUNK]:
            try:
                chunk.append(_written(example, renderers, encoder))
            except PreferoError as error:
                chunk.append(error)
        texts = [
            side.text
            for found in chunk
            if not isinstance(found, PreferoError) and not any(found.example.images.values())
            for side in found.sides
        ]
        encodings = {} if encoder.apart else dict(zip(texts, encoder.encode(texts), strict=True))
        for found in chunk:
            if isinstance(found, PreferoError):
                yield found
                continue
            try:
                yield _draft(found, encoder, encodings)
            except PreferoError as error:
                yield error


def _written(given: Example, renderers: Renderers, encoder: Encoder) -> _Written:
    """The example as text, each prompt in the way that it asks for with the responses to it."""
    encoder.check_sees(given)
    example = _as_scored(given, renderers.writing)
    sharing = tuple(response for response in example.responses if response.prompt is None)
    sides, starts = [], []
    for response in example.responses:
        prompt, answers = example.prompt, sharing
        if response.prompt is not None:
            prompt, answers = response.prompt, (response,)
        renderer = renderers.of(replace(example, prompt=prompt, responses=answers))
        sides.append(renderer.response(prompt, response, example, ending_of(prompt, answers)))
        starts.append(renderer.starts)
        check_text(sides[-1].text, example.origin)
    return _Written(given, example, sides, starts)


def _draft(
    written: _Written, encoder: Encoder, encodings: Mapping[str, Encoding] = MappingProxyType({})
) -> _Draft:
    example, sides = written.example, []
    for response, text, starts in zip(example.responses, written.sides, written.starts, strict=True):
        images = images_of(example.prompt if response.prompt is None else response.prompt, example)
        encoding = encodings.get(text.text) if not images else None
        encoding = encoder.whole(text, images, example.origin) if encoding is None else encoding
        encoder.check_images(encoding.ids, example.origin)
        first, *edges = encoder.places(text, encoding, example.origin)
        scored = np.zeros(len(encoding.ids), bool)
        for start, stop in zip(edges[0::2], edges[1::2], strict=True):
            scored[start:stop] = True
        sides.append(_Side(text, encoding, encoder.begins(text.text, starts), first, scored))
    cells, cuts = _cells(example, sides, encoder)
    notes = tuple(dict.fromkeys((*example.notes, *(n for side in sides for n in side.rendered.notes))))
    return _Draft(written.given, example, sides, cells, cuts, notes=notes)


def _cells(
    example: Example, sides: Sequence[_Side], encoder: Encoder
) -> tuple[tuple[Cell, ...], Sequence[int]]:
    """The cells, and where in its side the response of each begins. Those that answer the example's own
    prompt hold the same context."""
    cuts = [side.first for side in sides]
    own = [at for at, response in enumerate(example.responses) if response.prompt is None]
    # tokens of the prompt, too, may hang on what follows: those of several sides are shared as far as they go
    shared = min(
        (min(cuts[at], common(sides[at].encoding.ids, sides[own[0]].encoding.ids)) for at in own), default=0
    )
    for at in own:
        cuts[at] = shared
    contexts: dict[bytes, Ids] = {}
    cells = []
    for side, cut in zip(sides, cuts, strict=True):
        context = np.concatenate([side.begins, side.encoding.ids[:cut]])
        if not len(context):
            context = encoder.first_token(example.origin)
        context = contexts.setdefault(context.tobytes(), context)
        response, scored = side.encoding.ids[cut:], side.scored[cut:]
        if side.rendered.end:
            ends = encoder.ends(len(response), example.origin)
            response = np.concatenate([response, ends])
            scored = np.concatenate([scored, np.ones(len(ends), bool)])
        encoder.check_response(response, scored, example.origin)
        cells.append(Cell(context, response, None if scored.all() else scored))
    return tuple(cells), cuts


# Examples that are too long


def _fitted(
    draft: _Draft | PreferoError, treatment: Treatment, renderers: Renderers, encoder: Encoder
) -> _Draft:
    """The example in at most ``max_length`` tokens.

    Raises :class:`LeftOut` for one that is left out, :class:`PreferoError` for one that is refused.
    """
    if isinstance(draft, PreferoError):
        raise draft
    limit, origin = treatment.max_length, draft.example.origin
    if limit is None or _longest(draft.cells) <= limit:
        return draft
    if treatment.too_long == "error":
        raise PreferoError(
            f"{origin}: prompt and response have {_longest(draft.cells)} tokens, and max_length is {limit}. "
            "Raise max_length, remove the row, or choose what is cut (too_long)."
        )
    if treatment.too_long == "drop":
        raise LeftOut(f"examples of more than max_length = {limit} tokens")
    shorter = _without_old_turns(draft, limit, renderers, encoder)
    cells = shorter.cells
    if treatment.too_long == "keep_recent_prompt":
        cells = _newest(cells, limit, encoder.start, origin)
    elif max(len(cell.context) for cell in cells) >= limit:
        raise LeftOut(
            f"examples whose prompt alone has max_length = {limit} tokens or more (choose "
            "too_long=keep_recent_prompt to cut prompts)"
        )
    cells = tuple(cell.cut(limit - len(cell.context)) for cell in cells)
    if any(cell.scored is not None and not cell.scored.any() for cell in cells):
        raise LeftOut(f"examples of which max_length = {limit} leaves no token to score")
    # where all turns of the assistant are scored, the oldest turns stand in all responses
    lost_turns = unique_tokens(draft.cells) - unique_tokens(shorter.cells)
    lost_prompt = lost_turns + _prompt_tokens(shorter.cells) - _prompt_tokens(cells)
    lost_response = sum(
        len(whole.response) - len(cell.response) for whole, cell in zip(shorter.cells, cells, strict=True)
    )
    return replace(shorter, cells=cells, lost=(lost_prompt, lost_response))


def _longest(cells: Sequence[Cell]) -> int:
    return max(len(cell.context) + len(cell.response) for cell in cells)


def _prompt_tokens(cells: Sequence[Cell]) -> int:
    return sum(len(context) for context in {id(cell.context): cell.context for cell in cells}.values())


def _without_old_turns(draft: _Draft, limit: int, renderers: Renderers, encoder: Encoder) -> _Draft:
    """The example without as few of its oldest turns as make it fit; without all but the newest, if even that
    does not."""
    example = draft.given
    prompts = [example.prompt, *(r.prompt for r in example.responses if r.prompt is not None)]
    low, high = 0, max(len(shorter_prompts(prompt)) for prompt in prompts)
    drafts = {0: draft}

    def shortened(turns: int) -> _Draft:
        if turns not in drafts:
            drafts[turns] = _draft(_written(_shortened(example, turns), renderers, encoder), encoder)
        return drafts[turns]

    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _longest(shortened(middle).cells) <= limit else (middle + 1, high)
    return shortened(low)


def _shortened(example: Example, turns: int) -> Example:
    """The example without the oldest turns of each of its prompts, that many times one turn of the user with
    what follows it."""

    def short(prompt: Text) -> Text:
        choices = [prompt, *shorter_prompts(prompt)]
        return choices[min(turns, len(choices) - 1)]

    responses = tuple(
        r if r.prompt is None else replace(r, prompt=short(r.prompt)) for r in example.responses
    )
    return replace(example, prompt=short(example.prompt), responses=responses)


def shorter_prompts(prompt: Text) -> list[Text]:
    """The conversation without its oldest turns, the longest first; the instructions before it (turns of
    system or developer) stay, and so does the last turn of the user with all that follows it."""
    if isinstance(prompt, str):
        return []
    instructions = tuple(takewhile(lambda turn: turn["role"] in INSTRUCTING, prompt))
    turns = prompt[len(instructions) :]
    starts = [at for at, turn in enumerate(turns) if turn["role"] == "user" and at > 0]
    return [(*instructions, *turns[at:]) for at in starts]


def _newest(cells: Sequence[Cell], limit: int, start: Ids, origin: str) -> tuple[Cell, ...]:
    """The cells with the newest tokens of their prompts that leave room for the longest response; one that
    leaves none is cut.

    Raises :class:`PreferoError` where tokens of images would be lost.
    """
    groups: dict[int, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(id(cell.context), []).append(cell.cut(limit - 1))
    contexts = {}
    for key, group in groups.items():
        context, room = group[0].context, limit - max(len(cell.response) for cell in group)
        if len(context) > room:
            first = len(start) if room > len(start) and np.array_equal(context[: len(start)], start) else 0
            newest = np.concatenate([context[:first], context[len(context) - (room - first) :]])
            if (newest < 0).sum() < (context < 0).sum():
                raise PreferoError(
                    f"{origin}: the images do not fit: prompt and response have "
                    f"{len(context) + limit - room} tokens, {(context < 0).sum()} of them of images, which "
                    f"are not cut, and max_length is {limit}. Raise max_length, make the images smaller, or "
                    "remove the row"
                )
            context = newest
        contexts[key] = context
    return tuple(replace(cell.cut(limit - 1), context=contexts[id(cell.context)]) for cell in cells)


# Other prompts and annotations


def _under(
    draft: _Draft,
    view: str,
    for_method: str,
    treatment: Treatment,
    renderers: Renderers,
    encoder: Encoder,
) -> _Draft:
    """The example under the prompt that it has for a view: as many tokens of each response as in ``draft``,
    wherever they are the same tokens and fit. ``lost`` counts what the responses did not lose in ``draft``
    already, and ``notes`` say what those of ``draft`` do not."""
    given = draft.given
    prompt, shown = prompt_of(given, view, for_method), given.images.get(view, given.images.get("", ()))
    other = replace(given, prompt=prompt, images={"": shown})
    under = _fitted(_draft(_written(other, renderers, encoder), encoder), treatment, renderers, encoder)
    same = [np.array_equal(*ids) for ids in zip(_responses(under), _responses(draft), strict=True)]
    cells = tuple(
        cell.cut(len(own.response)) if alike else cell
        for cell, own, alike in zip(under.cells, draft.cells, same, strict=True)
    )
    lost_prompt, lost_response = under.lost
    lost = lost_prompt, max(lost_response - draft.lost[1], 0)
    notes = [note for note in under.notes if note not in draft.notes]
    if not all(same):
        notes.append("responses are other tokens behind it than behind the row's own prompt")
    return replace(under, cells=cells, lost=lost, notes=tuple(notes))


def _responses(draft: _Draft) -> list[Ids]:
    """The tokens of the whole responses, without end tokens."""
    return [side.encoding.ids[cut:] for side, cut in zip(draft.sides, draft.cuts, strict=True)]


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


def _token_columns(draft: _Draft, names: Sequence[str], encoder: Encoder) -> dict[str, Annotation]:
    """The columns of tokens: made of the whole responses, and as long as the cells that fit."""
    columns: dict[str, Annotation] = {}
    for name in names:
        spec = SCHEMA[name]
        if spec.axes != "example response token":
            continue
        if name == "differs":
            eos = encoder.tokenizer.eos_token_id
            responses = [
                np.append(ids, [eos] if side.rendered.end else []).astype(np.int64)
                for side, ids in zip(draft.sides, _responses(draft), strict=True)
            ]
            rows: Sequence[NDArray[Any]] = differs(draft.example.roles, responses, encoder.function_words)
        else:
            rows = [_values(name, draft, at) for at in range(len(draft.sides))]
        columns[name] = tuple(
            _as_long(row, len(cell.response)).astype(DTYPES[spec.dtype])
            for row, cell in zip(rows, draft.cells, strict=True)
        )
    return columns


def _values(name: str, draft: _Draft, at: int) -> NDArray[np.float64]:
    """One number per token of a response and its end token."""
    side, response, origin = draft.sides[at], draft.example.responses[at], draft.example.origin
    if side.encoding.start is None or side.encoding.end is None:
        raise PreferoError(
            f"{origin}: the tokenizer does not tell which characters a token is made of, and the data "
            "annotate parts of responses. Use the model's fast tokenizer."
        )
    values = token_values(name, response, side.rendered, side.encoding.start, side.encoding.end, origin)
    return np.append(values[draft.cuts[at] :], [READINGS[name].otherwise] if side.rendered.end else [])


def _as_long(row: NDArray[Any], length: int) -> NDArray[Any]:
    """``row`` without tokens that were cut off, and with its last value for end tokens that fill a canvas."""
    return np.pad(row[:length], (0, max(length - len(row), 0)), "edge")
