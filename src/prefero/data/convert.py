"""Examples as rows again, in the layouts that :func:`~prefero.data.formats.load_examples` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefero.data.examples import Content, Example, Response, Span
from prefero.data.pictures import Picture
from prefero.data.schema import OTHER_PROMPTS, OTHER_RESPONSES, SCHEMA
from prefero.errors import PreferoError

PAIR = ("chosen", "rejected")
VOTES = {1.0: 1, 0.0: 2, 0.5: 0}


def row_of(example: Example) -> dict[str, Any]:
    """The example as a row of JSON: a pair, a comparison with its votes, a labelled response or a list.

    Raises :class:`PreferoError` for what no row of these says: responses to prompts of their own, responses
    that are cut off, and images that are no files.
    """
    if any(response.prompt is not None or not response.ended for response in example.responses):
        raise PreferoError(
            f"{example.origin}: its responses have prompts of their own, or are cut off, which a converted "
            "row cannot say. Train on the data as they are."
        )
    row: dict[str, Any] = {"prompt": _written(example.prompt)}
    if example.roles[:2] != PAIR:
        row |= _alone(example.responses[0]) if _is_labelled(example) else _listed(example)
    elif _is_comparison(example):
        row |= _compared(example)
    else:
        for response in example.responses:
            row |= _named(response)
    row |= {name: value for name, value in example.columns.items() if name in SCHEMA and name not in row}
    row |= {OTHER_PROMPTS[view].field: _written(prompt) for view, prompt in example.prompts.items()}
    for view, images in example.images.items():
        if images:
            row["images" if not view else f"images_{view}"] = [_written(image) for image in images]
    if example.tools:
        row["tools"] = list(example.tools)
    if example.template_options:
        row["chat_template_kwargs"] = dict(example.template_options)
    return row


def _named(response: Response) -> dict[str, Any]:
    """A response of a pair, and all that belongs to it, under the name of its role."""
    role = str(response.role)
    field = OTHER_RESPONSES[role].field if role in OTHER_RESPONSES else role
    row = {field: _written(response.content)}
    row |= {f"{role}_{name}": value for name, value in response.columns.items() if name in SCHEMA}
    if response.writer:
        row[f"{role}_model"] = response.writer
    if response.spans:
        row[f"{role}_spans"] = [_span(span) for span in response.spans]
    return row


def _is_comparison(example: Example) -> bool:
    """Whether an example has votes, or a preference and nothing that only a pair's row can say."""
    judged = {"tie", "preference"} <= set(example.columns) and not isinstance(example.prompt, str)
    scored = all(set(r.columns) <= {"score"} and not r.spans for r in example.responses)
    return bool(example.votes) or (judged and scored)


def _compared(example: Example) -> dict[str, Any]:
    """Two responses in the order in which the annotators saw them, and the votes, or which is preferred, from
    1 for the first to 2 for the second."""
    first, second = example.responses[:2]
    if example.chosen_second:
        first, second = second, first
    second_preferred = float(example.columns["preference"])  # type: ignore[arg-type]
    if not example.chosen_second:
        second_preferred = 1 - second_preferred
    row: dict[str, Any] = {"response1": _written(first.content), "response2": _written(second.content)}
    if not example.votes:
        row["preference"] = 1 + second_preferred
    for name, vote in example.votes.items():
        row[name] = VOTES[1 - vote if example.chosen_second else vote]
    if first.writer and second.writer:
        row |= {"model1": first.writer, "model2": second.writer}
    if "score" in first.columns and "score" in second.columns:
        row |= {"score1": first.columns["score"], "score2": second.columns["score"]}
    for response in example.responses[2:]:
        row |= _named(response)
    return row


def _is_labelled(example: Example) -> bool:
    """Whether an example is one response with a label; one with a score may stand beside lists."""
    return len(example.responses) == 1 and "score" not in example.responses[0].columns


def _alone(response: Response) -> dict[str, Any]:
    row: dict[str, Any] = {"completion": _written(response.content), **_known(response.columns)}
    if "label" in row:
        row["label"] = row["label"] > 0
    if response.spans:
        row["spans"] = [_span(span) for span in response.spans]
    return row


def _listed(example: Example) -> dict[str, Any]:
    """Candidates: texts that are good or bad as such, others each as an object with its scores."""
    labels = [dict(response.columns) for response in example.responses]
    good = labels.count({"label": 1.0})
    texts = [response.content for response in example.responses]
    split = [{"label": 1.0}] * good + [{"label": -1.0}] * (len(labels) - good)
    bare = all(isinstance(text, str) for text in texts) and not any(
        response.writer or response.spans for response in example.responses
    )
    if bare and len(labels) > 2 and labels == split and 0 < good < len(labels):
        return {"chosen": texts[:good], "rejected": texts[good:]}
    items = []
    for response in example.responses:
        item: dict[str, Any] = {"response": _written(response.content)}
        aspects = {
            name.partition("/")[2]: value
            for name, value in response.columns.items()
            if name.startswith("score/")
        }
        if aspects:
            item["annotations"] = aspects
        if response.writer:
            item["model"] = response.writer
        item |= {name: response.columns[name] for name in ("score", "rank") if name in response.columns}
        items.append(item)
    names = {name for response in example.responses for name in _known(response.columns)} - {"score", "rank"}
    beside = {name: [response.columns.get(name) for response in example.responses] for name in sorted(names)}
    spans = [[_span(span) for span in response.spans] for response in example.responses]
    of_responses = {"spans": spans if len(spans) > 1 else spans[0]} if any(spans) else {}
    return {"responses": items, **beside, **of_responses}


def _known(columns: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in columns.items() if name in SCHEMA}


def _span(span: Span) -> dict[str, Any]:
    numbered = {span.kind: span.index} if span.kind in ("segment", "step") else {}
    return {"start": span.start, "end": span.end, **numbered, **span.scores}


def _written(content: Content) -> Any:
    if isinstance(content, Picture):
        if not isinstance(content.content, Path):
            raise PreferoError(f"{content.origin}: the image is no file, which a row could name")
        path = content.content
        return str(path.absolute() if path.is_file() else path)  # the row may be written to any folder
    return content if isinstance(content, str) else [dict(turn) for turn in content]
