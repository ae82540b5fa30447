"""The published methods, as ``prefero methods`` and the generated pages tell of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal, get_args, get_origin

from prefero.data.schema import GIVEN, OTHER_PROMPTS, OTHER_RESPONSES, SCHEMA
from prefero.errors import PreferoError, nearest
from prefero.objectives import Method, Needs, Parameter, dry_run, find, methods

FEEDBACK = {
    "pairs": "a chosen and a rejected response to each prompt",
    "lists": "several responses to each prompt, ranked or scored",
    "unpaired": "single responses, each marked desirable or undesirable",
    "ties": "comparisons in which annotators may call a tie",
    "scores": "scores of the responses",
    "steps": "responses in reasoning steps",
    "spans": "annotated spans of the responses",
    "samples": "responses drawn in rounds from the policy while it trains",
}

IMPLIED = {
    "pairs": {"unpaired"},
    "lists": {"pairs", "unpaired"},
    "scores": {"pairs", "lists", "unpaired"},
    "ties": {"pairs", "unpaired"},
    "steps": {"pairs", "unpaired"},
    "spans": {"pairs", "unpaired"},
}
"""Further readings of a kind of data: a ranking has a best and a worst response, a pair two labels."""

FEEDBACK_COLUMNS = frozenset(
    {
        "score",
        "label",
        "rank",
        "tie",
        "preference",
        "step",
        "error_step",
        "segment",
        "token_weight",
        "token_score",
    }
)
"""The columns in which those kinds arrive."""

PARTS = frozenset([*SCHEMA, *(part.field for part in [*OTHER_RESPONSES.values(), *OTHER_PROMPTS.values()])])
"""Further parts of a row, by name."""


def overview(
    *,
    data: Collection[str] = (),
    paper: str = "",
    reference: bool = True,
    generation: bool = True,
) -> list[dict[str, Any]]:
    """One entry a method, by key.

    ``data`` keeps the methods that such data suffice for (kinds of :data:`FEEDBACK`, and :data:`PARTS` of
    rows that the data have besides), those made for it first; ``paper`` those whose key, citation or title
    has the text; ``reference=False`` those that read no model but the policy; ``generation=False`` those that
    sample nothing while they train.

    Raises :class:`PreferoError` for an unknown kind of data.
    """
    for kind in data:
        if kind not in FEEDBACK and kind not in PARTS:
            raise PreferoError(
                f"no kind of data is called {kind!r}{nearest(kind, [*FEEDBACK, *PARTS])} (known: "
                f"{', '.join(FEEDBACK)}; and parts of rows such as group or gold)"
            )
    entries = []
    for method in sorted(methods().values(), key=lambda method: method.key):
        needs = needs_of(method)
        carried = method.feedback | extra_parts(method, needs)
        if (
            paper.lower() in f"{method.paper} {method.citation} {method.title}".lower()
            and (not data or suffices(data, carried))
            and (generation or "samples" not in method.feedback)
            and (reference or models_of(needs) == {"policy"})
        ):
            entries.append(
                {
                    "key": method.key,
                    "title": method.title,
                    "citation": method.citation,
                    "paper": method.paper,
                    "feedback": sorted(method.feedback),
                    "annotations": sorted(extra_parts(method, needs)),
                }
            )
    return sorted(entries, key=lambda entry: not set(data) <= {*entry["feedback"], *entry["annotations"]})


def extra_parts(method: Method, needs: Needs) -> frozenset[str]:
    """The parts of rows besides the feedback itself: columns, further responses, other prompts."""
    every = (needs, *needs.views.values())
    columns = {name for one in every for name in one.columns if name in GIVEN} - FEEDBACK_COLUMNS
    prompts = {OTHER_PROMPTS[view].field for view in needs.views if view in OTHER_PROMPTS}
    responses = {OTHER_RESPONSES[role].field for role in needs.roles if role in OTHER_RESPONSES}
    if "samples" in method.feedback:
        responses.discard("sample")
    return frozenset(columns | prompts | responses)


def models_of(needs: Needs) -> set[str]:
    """Every model that is read, in the examples themselves or in a view."""
    return {name for one in (needs, *needs.views.values()) for name in one.models}


def suffices(data: Iterable[str], carried: Collection[str]) -> bool:
    """Whether a method that wants ``carried`` can be trained on ``data``; samples make themselves."""
    there = set(data).union(*(IMPLIED.get(kind, set()) for kind in data))
    return set(carried) - {"samples"} <= there


def describe(name: str) -> dict[str, Any]:
    """Everything there is to say about one method.

    Raises :class:`PreferoError` for an unknown name.
    """
    method = find(name)
    needs = needs_of(method)
    return {
        "key": method.key,
        "title": method.title,
        "description": unwrapped(method.description.replace("``", "")),
        "equation": method.equation,
        "citation": method.citation,
        "paper": method.paper,
        "aliases": list(method.aliases),
        "feedback": sorted(method.feedback),
        "data": [FEEDBACK[kind] for kind in sorted(method.feedback)],
        "parameters": [parameter(one) for one in method.parameters.values()],
        "needs": needs_in_words(needs),
        "settings": {name: dict(values) for name, values in method.settings.items()},
        "equals": [
            {"method": one.method, "at": dict(one.at), "given": dict(one.given)} for one in method.equals
        ],
        "special_cases_of": [
            {"method": other.key, "at": dict(one.at)}
            for other in methods().values()
            for one in other.equals
            if one.method == method.key and other.key != method.key
        ],
        "relatives": method.relatives,
        "pitfalls": method.pitfalls,
    }


def unwrapped(text: str) -> str:
    """Paragraphs without the line breaks that the source has."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def parameter(one: Parameter) -> dict[str, Any]:
    choices = get_args(one.kind) if get_origin(one.kind) is Literal else ()
    return {
        "name": one.name,
        "required": one.required,
        "default": None if one.required else one.default,
        "range": str(one.range) if one.range is not None else None,
        "choices": list(choices) or None,
    }


def needs_of(method: Method) -> Needs:
    """The needs that a dry run records with the default arguments."""
    return dry_run(method.build())


def needs_in_words(needs: Needs) -> dict[str, Any]:
    return {
        "responses": list(needs.roles) or ["unnamed candidates"],
        "models": sorted(needs.models, key=lambda model: (model != "policy", model)),
        "signals": sorted(
            f"{signal.name} of the {model}" + (f" against the {signal.against}" if signal.against else "")
            for model, signals in needs.models.items()
            for signal in signals
        ),
        "columns": {
            name: {"meaning": GIVEN[name].meaning, "fields": list(GIVEN[name].fields)}
            for name in sorted(needs.columns)
            if name in GIVEN
        },
        "views": {name: needs_in_words(view) for name, view in needs.views.items()},
        "whole_step": not needs.exact,
    }
