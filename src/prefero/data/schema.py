"""Every annotation that objectives may read, once: its axes, type, meaning, and the data fields that fill it.

Readers, collator, error messages, the dry run and the documentation all read this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axes = Literal["example", "example response", "example response token", "example hidden"]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """``fields`` are the names under which data files carry the column, ``sample`` is a row that does;
    ``drawn`` columns are made by the collator from the run's seed instead (uniform on (0, 1))."""

    axes: Axes
    dtype: Literal["float", "int", "bool"]
    meaning: str
    fields: tuple[str, ...] = ()
    drawn: bool = False
    sample: str = ""


SCHEMA: dict[str, ColumnSpec] = {
    "score": ColumnSpec(
        "example response",
        "float",
        "how good a judge thinks the response is; higher is better",
        (
            "score",
            "scores",
            "rating",
            "ratings",
            "rewards",
            "chosen_score/rejected_score",
            "score_chosen/score_rejected",
        ),
        sample='{"prompt": …, "chosen": …, "rejected": …, "chosen_score": 8.5, "rejected_score": 3}',
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
        sample='{"prompt": …, "chosen": …, "rejected": …, "chosen_win_rate": 0.7, "rejected_win_rate": 0.3}',
    ),
    "uncertainty": ColumnSpec(
        "example response",
        "float",
        "how unsure a judge is of the response's score, in units of reward; at least 0",
        ("uncertainty", "uncertainties"),
        sample='{"prompt": …, "chosen": …, "rejected": …, "chosen_uncertainty": 0.2, '
        '"rejected_uncertainty": 0.9}',
    ),
    "flip_rate": ColumnSpec(
        "example",
        "float",
        "probability that the label of the pair is wrong; 0 to 1",
        ("flip_rate",),
        sample='{"prompt": …, "chosen": …, "rejected": …, "flip_rate": 0.1}',
    ),
    "tie": ColumnSpec(
        "example",
        "bool",
        "whether the annotators called it a tie",
        ("tie", "annotator1..n"),
        sample='{"prompt": …, "chosen": …, "rejected": …, "tie": false}',
    ),
    "preference": ColumnSpec(
        "example",
        "float",
        "share of annotators who prefer the chosen response, ties counted half; 0 to 1",
        ("preference", "annotator1..n"),
        sample='{"prompt": …, "chosen": …, "rejected": …, "preference": 0.8}',
    ),
    "group": ColumnSpec(
        "example",
        "int",
        "which group of people the preference comes from",
        ("group",),
        sample='{"prompt": …, "chosen": …, "rejected": …, "group": 2}',
    ),
    "prompt_embedding": ColumnSpec(
        "example hidden",
        "float",
        "an embedding of the prompt",
        ("prompt_embedding",),
        sample='{"prompt": …, "chosen": …, "rejected": …, "prompt_embedding": [0.1, -0.3]}',
    ),
    "pair_noise": ColumnSpec("example", "float", "uniform noise, one number an example", drawn=True),
    "noise": ColumnSpec("example response token", "float", "uniform noise, one number a token", drawn=True),
}
