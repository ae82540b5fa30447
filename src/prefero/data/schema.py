"""Every annotation that objectives may read, once: its axes, type, meaning, and the data fields that fill it.

Readers, collator, error messages, the dry run and the documentation all read this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

Axes = Literal["example", "example response", "example response token", "example hidden"]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """An annotation: ``fields`` are its names in data files, ``sample`` is a row that has it; its numbers lie
    between ``bounds``.

    Two kinds of column do not stand in the data: ``drawn`` ones are made by the collator from the run's
    seed (uniform on (0, 1)), ``derived`` ones by tokenisation from the responses themselves.
    """

    axes: Axes
    dtype: Literal["float", "int", "bool"]
    meaning: str
    fields: tuple[str, ...] = ()
    drawn: bool = False
    sample: str = ""
    derived: bool = False
    bounds: tuple[float, float] = (-inf, inf)


SPAN_FIELDS = ("chosen_spans/rejected_spans", "spans")
"""Fields of rows that annotate parts of a response: :mod:`prefero.data.formats.annotations`."""


def _pair(annotations: str) -> str:
    """A row that is a pair with the annotations."""
    return f'{{"prompt": …, "chosen": …, "rejected": …, {annotations}}}'


def _marked(annotation: str) -> str:
    """A row whose chosen response has a span with the annotation."""
    return _pair(f'"chosen_spans": [{{"start": 0, "end": 4, {annotation}}}]')


SCHEMA: dict[str, ColumnSpec] = {
    "score": ColumnSpec(
        "example response",
        "float",
        "how good a judge thinks the response is; higher is better",
        (
            "score",
            "scores",
            "reward",
            "rating",
            "ratings",
            "rewards",
            "avg_rating",
            "chosen_score/rejected_score",
            "score_chosen/score_rejected",
        ),
        sample=_pair('"chosen_score": 8.5, "rejected_score": 3'),
    ),
    "label": ColumnSpec(
        "example response",
        "float",
        "+1 for a desirable response, -1 for an undesirable one",
        ("label",),
        sample='{"prompt": …, "completion": …, "label": true}',
    ),
    "rank": ColumnSpec(
        "example response",
        "int",
        "place in the ranking of the responses, 0 the best",
        ("rank", "ranks"),
        sample='{"prompt": …, "responses": [a, b, c], "ranks": [1, 0, 2]}',
    ),
    "win_rate": ColumnSpec(
        "example response",
        "float",
        "probability that a judge prefers the response to another one of the sampling policy; 0 to 1",
        ("win_rate", "win_rates"),
        sample=_pair('"chosen_win_rate": 0.7, "rejected_win_rate": 0.3'),
        bounds=(0, 1),
    ),
    "advantage": ColumnSpec(
        "example response",
        "float",
        "how much better the response is than the policy's usual one to the prompt",
        ("advantage", "advantages"),
        sample=_pair('"chosen_advantage": 0.5, "rejected_advantage": -0.3'),
    ),
    "uncertainty": ColumnSpec(
        "example response",
        "float",
        "how unsure a judge is of the response's score, in units of reward; at least 0",
        ("uncertainty", "uncertainties"),
        sample=_pair('"chosen_uncertainty": 0.2, "rejected_uncertainty": 0.9'),
        bounds=(0, inf),
    ),
    "visits": ColumnSpec(
        "example response",
        "float",
        "how often a tree search visited the response; at least 0",
        ("visits",),
        sample=_pair('"chosen_visits": 9, "rejected_visits": 4'),
        bounds=(0, inf),
    ),
    "other_score": ColumnSpec(
        "example response",
        "float",
        "reward of the response for the objectives that the pair does not compare, weighed among themselves",
        ("other_score", "other_scores"),
        sample=_pair('"chosen_other_score": 0.5, "rejected_other_score": 1.2'),
    ),
    "error_step": ColumnSpec(
        "example",
        "int",
        "the first reasoning step that the two responses do not share, as counted in the column step",
        ("error_step",),
        sample=_pair('"error_step": 3'),
    ),
    "degree": ColumnSpec(
        "example response",
        "int",
        "how much of the response's content was taken out, in classes from 0, nothing",
        ("degree", "degrees"),
        sample=_pair(
            '"chosen_degraded": …, "rejected_degraded": …, "chosen_degree": 0, "rejected_degree": 0, '
            '"chosen_degraded_degree": 2, "rejected_degraded_degree": 1'
        ),
        bounds=(0, inf),
    ),
    "flip_rate": ColumnSpec(
        "example",
        "float",
        "probability that the label of the pair is wrong; 0 to 1",
        ("flip_rate",),
        sample=_pair('"flip_rate": 0.1'),
        bounds=(0, 1),
    ),
    "tie": ColumnSpec(
        "example",
        "bool",
        "whether the annotators called it a tie",
        ("tie", "annotator1..n"),
        sample=_pair('"tie": false'),
    ),
    "desirability": ColumnSpec(
        "example",
        "float",
        "probability, judged by the prompt alone, that its response is labelled desirable; 0 to 1",
        ("desirability",),
        sample='{"prompt": …, "completion": …, "label": true, "desirability": 0.7}',
        bounds=(0, 1),
    ),
    "preference": ColumnSpec(
        "example",
        "float",
        "share of annotators who prefer the chosen response, ties counted half; 0 to 1",
        ("preference", "annotator1..n"),
        sample=_pair('"preference": 0.8'),
        bounds=(0, 1),
    ),
    "strength": ColumnSpec(
        "example",
        "float",
        "how much better the chosen response is than the rejected one, in steps of the annotators' scale",
        ("strength", "preference_strength", "overall_preference"),
        sample=_pair('"strength": 2'),
    ),
    "weight": ColumnSpec(
        "example",
        "float",
        "how much the example counts; at least 0",
        ("weight",),
        sample=_pair('"weight": 1.7'),
        bounds=(0, inf),
    ),
    "group": ColumnSpec(
        "example",
        "int",
        "which group of people the preference comes from",
        ("group",),
        sample=_pair('"group": 2'),
    ),
    "prompt_embedding": ColumnSpec(
        "example hidden",
        "float",
        "an embedding of the prompt",
        ("prompt_embedding",),
        sample=_pair('"prompt_embedding": [0.1, -0.3]'),
    ),
    "token_weight": ColumnSpec(
        "example response token",
        "float",
        "how much each token counts; 1 where nothing is said",
        SPAN_FIELDS,
        sample=_marked('"weight": 2'),
    ),
    "token_score": ColumnSpec(
        "example response token",
        "float",
        "how good a judge thinks the part of the response is that the token belongs to; 0 where nothing is "
        "said",
        SPAN_FIELDS,
        sample=_marked('"score": 3.5'),
    ),
    "image_weight": ColumnSpec(
        "example response token",
        "float",
        "how much each token counts where an image meets its corruption; 1 where nothing is said",
        SPAN_FIELDS,
        sample=_marked('"image_weight": 3'),
    ),
    "segment": ColumnSpec(
        "example response token",
        "int",
        "which segment or key phrase the token belongs to, from 1; 0 outside all",
        SPAN_FIELDS,
        sample=_marked('"segment": 1'),
    ),
    "step": ColumnSpec(
        "example response token",
        "int",
        "which reasoning step the token belongs to, from 1; 0 outside all",
        SPAN_FIELDS,
        sample=_marked('"step": 1'),
    ),
    "differs": ColumnSpec(
        "example response token",
        "bool",
        "whether the token is where the chosen and the rejected response differ; function words never are",
        derived=True,
    ),
    "pair_noise": ColumnSpec("example", "float", "uniform noise, one number per example", drawn=True),
    "noise": ColumnSpec("example response token", "float", "uniform noise, one number per token", drawn=True),
}
"""Every annotation that an objective may read, by the name of its column."""

GIVEN = {name: spec for name, spec in SCHEMA.items() if not (spec.drawn or spec.derived)}
"""The columns that only the data can fill."""


@dataclass(frozen=True, slots=True)
class RowPart:
    """Another response or prompt that a row may carry; ``field`` is where, ``sample`` a row that does."""

    field: str
    meaning: str

    @property
    def sample(self) -> str:
        return _pair(f'"{self.field}": …')


OTHER_RESPONSES: dict[str, RowPart] = {
    "gold": RowPart("gold", "a response better than both, such as a written reference answer"),
    "sample": RowPart("sample", "a response drawn from a model: the method says from which"),
    **{
        f"sample_{number}": RowPart(f"sample_{number}", "one of several responses drawn from a model")
        for number in range(1, 9)
    },
    "rationale": RowPart("rationale", "why the chosen response is the better one"),
    "revised": RowPart("revised", "the policy's own response with its mistakes corrected"),
    "chosen_degraded": RowPart("chosen_degraded", "the chosen response with content taken out"),
    "rejected_degraded": RowPart("rejected_degraded", "the rejected response with content taken out"),
}
"""The roles that a row's responses may have besides chosen and rejected."""

OTHER_PROMPTS: dict[str, RowPart] = {
    "corrupted": RowPart(
        "prompt_corrupted", "the prompt with the content that the answer depends on corrupted"
    ),
    "contradicted": RowPart("prompt_contradicted", "a prompt whose instructions the chosen response breaks"),
    "weaker": RowPart("prompt_weaker", "a prompt under which the preference is weaker or reversed"),
    "prompted": RowPart("prompt_refined", "the prompt with an instruction that asks for the best answer"),
}
"""The views in which the same responses stand under another prompt that the row carries."""
