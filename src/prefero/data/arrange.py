"""Examples as an objective reads them: pairs, labelled responses or ranked lists, and views of the same. What
the data lack and nothing implies is an error before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prefero.data.examples import Example, Examples, Response, Text
from prefero.data.schema import GIVEN, OTHER_PROMPTS, OTHER_RESPONSES, SCHEMA
from prefero.data.spans import annotated
from prefero.data.trie import Cell, TokenExample, common
from prefero.errors import PreferoError, nearest, number_of

PAIR = ("chosen", "rejected")


class NoneLeftError(PreferoError):
    """Raised where every example is left out, for its length or because it prefers nothing."""


LABEL_OF_ROLE = {"chosen": 1.0, "gold": 1.0, "rejected": -1.0}


def arrange(
    examples: Sequence[Example],
    roles: tuple[str, ...],
    columns: Collection[str] = frozenset(),
    *,
    for_method: str = "",
) -> Examples:
    """``examples`` with the responses that ``roles`` name, in that order, and every column in ``columns``.

    ``()`` keeps all responses as unnamed candidates. ``("chosen", "rejected")`` asked of a list takes its
    best and its worst response by score, rank or label, the earlier of equals, and notes how many others
    there are; a list whose best is no better than its worst, or says the same, is dropped. So is an example
    that its annotators called a tie, unless ``tie`` or ``preference`` is among the columns, and a scored
    response among others that has no other one beside it. ``Examples.dropped`` counts all of them; fields of
    responses that ``roles`` do not name are unread. Arranging twice changes nothing.

    Annotations of tokens stay spans of the text until it is tokenised; one span that says something for the
    column is enough. Derived, where the data do not give them: ``label`` from roles; ``rank`` from scores,
    roles or labels, equal ones sharing a place; ``tie`` from ``preference`` or the two scores of a pair.

    Raises :class:`NoneLeftError` where nothing is left, and :class:`PreferoError` for a role or a column that
    neither the data have nor anything implies, naming the fields that would fill it and ``for_method``.
    """
    for name in columns:
        if name not in SCHEMA:
            raise PreferoError(
                f"{asker_of(for_method)} asks for the unknown column {name!r}{nearest(name, SCHEMA)}."
            )
    wanted = [name for name in sorted(columns) if name in GIVEN]
    keeps_ties = bool({"tie", "preference"} & set(wanted))
    given = examples if isinstance(examples, Examples) else Examples(examples)
    dropped = Counter(given.dropped)
    kept = []
    some_compared = not all(map(_is_alone, given))
    for example in given:
        if roles == PAIR and some_compared and _is_alone(example):
            dropped["responses without another one to the same prompt"] += 1
            continue
        if example.columns.get("tie") and not keeps_ties:
            dropped["ties"] += 1
            continue
        responses = _responses(example, roles, for_method)
        # A pair that the data name is taken at its word; one taken from a list has to prefer something.
        from_list = roles == PAIR and not set(PAIR) <= set(example.roles)
        if from_list and worth(responses[0]) == worth(responses[1]):
            if not keeps_ties:
                dropped["equally good responses"] += 1
                continue
        elif from_list and responses[0].content == responses[1].content:
            dropped["equal responses of different worth"] += 1
            continue
        if from_list and (others := len(example.responses) - 2):
            verb = "is" if others == 1 else "are"
            note = f"{number_of(others, 'response')} between the best and the worst {verb} not used"
            example = replace(example, notes=(*example.notes, note))
        if (
            not roles
            and len(responses) > 1
            and len(worths := set(map(worth, responses))) == 1
            and not worths & {None}
            and "label" not in wanted
        ):
            note = "its responses are equally good, so there is nothing to learn from comparing them"
            example = replace(example, notes=(*example.notes, note))
        if responses is not example.responses:
            further = {r.role for r in example.responses if r.role in OTHER_RESPONSES} - set(roles)
            unread = (*example.unread, *sorted(OTHER_RESPONSES[str(role)].field for role in further))
            example = replace(example, responses=responses, unread=unread)
        kept.append(_with_columns(example, wanted, for_method) if wanted else example)
    if not kept:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "there were none"
        raise NoneLeftError(
            f"{given.name or 'the data'}: no example is left for {asker_of(for_method)}: {reasons}."
        )
    return replace(given, items=kept, dropped=dict(dropped))


def _is_alone(example: Example) -> bool:
    """Whether an example has one scored response, so that there is nothing to compare it with."""
    return len(example.responses) == 1 and "score" in example.responses[0].columns


def asker_of(method: str) -> str:
    """The name in messages of whoever reads the data."""
    return f"method {method!r}" if method else "the objective"


def worth(response: Response) -> float | None:
    """The response's score, rank (negated) or label, the first that is known; higher is better."""
    columns = response.columns
    if "score" in columns:
        return columns["score"]
    if "rank" in columns:
        return -columns["rank"]
    return columns.get("label")


def _responses(example: Example, roles: tuple[str, ...], method: str) -> tuple[Response, ...]:
    if not roles or roles == example.roles:
        return example.responses
    by_role = {response.role: response for response in example.responses}
    if all(role in by_role for role in roles):
        return tuple(by_role[role] for role in roles)
    if roles == PAIR and len(example.responses) > 1:
        worths = [worth(response) for response in example.responses]
        if None not in worths:
            known = [value for value in worths if value is not None]
            best = example.responses[known.index(max(known))]
            worst = example.responses[known.index(min(known))]
            return replace(best, role="chosen"), replace(worst, role="rejected")
    absent = [role for role in roles if role not in by_role]
    known_others = [OTHER_RESPONSES[role] for role in absent if role in OTHER_RESPONSES]
    if known_others and set(PAIR) & set(by_role):
        fields = "; ".join(f"{other.field!r} ({other.meaning})" for other in known_others)
        raise PreferoError(
            f"{example.origin or 'an example'}: {asker_of(method)} needs another response, in the field "
            f"{fields}; a row that has it: {known_others[0].sample}."
        )
    missing = " and ".join(absent)
    count = len(example.responses)
    if count == 1:
        found = "has one response alone. Methods for labelled responses, such as 'kto', take such data"
    else:
        found = f"has {count} responses that nothing tells apart: give them scores, ranks or labels"
        if example.unread:
            unread = ", ".join(example.unread)
            found += f" (columns that are not read: {unread}; --columns scores=COLUMN names one of scores)"
    raise PreferoError(
        f"{example.origin or 'an example'}: {asker_of(method)} needs the {missing} response, and this row "
        f"{found}."
    )


def _with_columns(example: Example, wanted: Sequence[str], method: str) -> Example:
    columns = dict(example.columns)
    responses = example.responses
    for name in wanted:
        if SCHEMA[name].axes == "example response token":
            if not annotated(responses, name):
                _missing(example, name, method)
        elif SCHEMA[name].axes != "example response":
            if name not in columns:
                value = _tie(example) if name == "tie" else None
                columns[name] = _missing(example, name, method) if value is None else value
        elif not all(name in response.columns for response in responses):
            values = _derived(responses, name) or _missing(example, name, method)
            responses = tuple(
                replace(response, columns={**response.columns, name: value})
                for response, value in zip(responses, values, strict=True)
            )
    return replace(example, columns=columns, responses=responses)


def _tie(example: Example) -> bool | None:
    if "preference" in example.columns:
        return example.columns["preference"] == 0.5
    scores = [response.columns.get("score") for response in example.responses]
    return None if None in scores or len(scores) != 2 else scores[0] == scores[1]


def _derived(responses: tuple[Response, ...], name: str) -> list[Any] | None:
    labels = [LABEL_OF_ROLE.get(response.role or "") for response in responses]
    if name == "label":
        return None if None in labels else labels
    if name == "rank":
        worths = [worth(response) for response in responses]
        known = worths if None not in worths else labels
        if None in known:
            return None
        return [sum(other > value for other in known) for value in known]  # type: ignore[operator]
    return None


def _missing(example: Example, name: str, method: str) -> Any:
    spec = SCHEMA[name]
    has = sorted({*example.columns, *(column for r in example.responses for column in r.columns)})
    raise PreferoError(
        f"{asker_of(method)} needs the column {name!r} ({spec.meaning}), and "
        f"{example.origin or 'an example'} does not have it (annotations it has: "
        f"{', '.join(has) or 'none'}). Fields that fill it: "
        f"{', '.join(spec.fields)}; a row that has it: {spec.sample}."
    )


View = Callable[[Sequence[TokenExample], int | None, int], list[tuple[Cell, ...]]]
"""``(examples, max_length, seed)`` to the cells of every example."""


def mismatched(examples: Sequence[TokenExample], max_length: int | None, seed: int) -> list[tuple[Cell, ...]]:
    """Every prompt with the responses of another example: KTO estimates its baseline on such pairs
    (Ethayarajh et al., 2024, section 4.1). Raises :class:`PreferoError` for one example alone.

    Which example lends its responses is one cycle through the whole data set, drawn with ``seed``: none keeps
    its own, each is lent once, and the view never changes, so that reference scores can be cached. An example
    with more responses than its lender repeats them. A response is cut where it does not fit.
    """
    if len(examples) < 2:
        raise PreferoError("Mismatched prompts and responses need two examples or more; there is one alone.")
    view = []
    for example, lender in zip(examples, one_cycle(len(examples), seed), strict=True):
        cells = []
        for position, cell in enumerate(example.cells):
            lent = examples[lender].cells[position % len(examples[lender].cells)]
            room = None if max_length is None else max_length - len(cell.context)
            cells.append(replace(lent, context=cell.context).cut(room))
        view.append(tuple(cells))
    return view


def one_cycle(count: int, seed: int) -> NDArray[np.int64]:
    """A permutation of ``count`` positions that is a single cycle, so that none stays in its place."""
    order = np.random.default_rng(seed).permutation(count)
    successor = np.empty(count, dtype=np.int64)
    successor[order] = np.roll(order, -1)
    return successor


def with_prompt(
    examples: Sequence[TokenExample], max_length: int | None, seed: int
) -> list[tuple[Cell, ...]]:
    """The whole text as the response, from its second token on, the first predicted one, without images."""
    view = []
    for example in examples:
        cells = []
        for cell in example.cells:
            text = np.concatenate([cell.context, cell.response])
            scored = None
            if cell.scored is not None or (text < 0).any():
                own = np.ones(len(cell.response), dtype=np.bool_) if cell.scored is None else cell.scored
                scored = np.concatenate([cell.context >= 0, own])[1:]
            cells.append(Cell(text[:1], text[1:], scored))
        view.append(tuple(cells))
    return view


def unprompted(examples: Sequence[TokenExample], max_length: int | None, seed: int) -> list[tuple[Cell, ...]]:
    """Every response without its prompt: after the tokens that all prompts of the data begin and end with,
    the template of an empty prompt. Raises :class:`PreferoError` where the prompts share no token."""
    contexts = [cell.context for example in examples for cell in example.cells]
    first = contexts[0]
    start = min(common(first, context) for context in contexts)
    end = min(common(first[start:][::-1], context[start:][::-1]) for context in contexts)
    template = np.concatenate([first[:start], first[len(first) - end :]])
    if not len(template):
        raise PreferoError(
            "The prompts share no token, so that their responses cannot be scored without them: use a "
            "tokenizer with a token for the beginning of a text, or a chat template."
        )
    return [
        tuple(Cell(template, cell.response, cell.scored) for cell in example.cells) for example in examples
    ]


VIEWS: Mapping[str, View] = {
    "mismatched": mismatched,
    "with_prompt": with_prompt,
    "unprompted": unprompted,
}


def prompt_of(example: Example, view: str, method: str) -> Text:
    """The prompt that a row has for a view of :data:`prefero.data.schema.OTHER_PROMPTS`. Raises
    :class:`PreferoError` where it has none, and for an unknown view."""
    if view in example.prompts:
        return example.prompts[view]
    if view not in OTHER_PROMPTS:
        known = [*VIEWS, *OTHER_PROMPTS]
        raise PreferoError(f"unknown view {view!r}{nearest(view, known)}. Views: {', '.join(known)}.")
    part = OTHER_PROMPTS[view]
    raise PreferoError(
        f"{example.origin or 'an example'}: {asker_of(method)} reads the responses under another prompt too, "
        f"in the field {part.field!r} ({part.meaning}); a row that has it: {part.sample}."
    )


def with_view(
    examples: Sequence[TokenExample], view: str, cells: Sequence[tuple[Cell, ...]], places: Sequence[int]
) -> list[TokenExample]:
    """The examples with one more view: the cells at these places of theirs, or all."""
    return [
        replace(example, views={**example.views, view: tuple(own[place] for place in places) or own})
        for example, own in zip(examples, cells, strict=True)
    ]
