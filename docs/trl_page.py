"""The page ``docs/trl.md``: what TRL's preference losses are called here.

``python -m docs.generate`` writes it; tests check every line of the table by the loss and the gradients of a
real batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docs.habits import HABITS
from docs.method_pages import table
from prefero.training.vocabulary import TRL_NAMES

Table = list[tuple[Mapping[str, Any], Mapping[str, Any]]]
"""What TRL's configuration is told, and what the objective of a recipe says."""

DPO: Table = [
    ({"loss_type": "sigmoid", "beta": 0.3}, {"method": "dpo", "beta": 0.3}),
    ({"loss_type": "hinge"}, {"method": "rso", "gamma": 0.1, "loss": "hinge_norm"}),
    ({"loss_type": "ipo", "beta": 0.2}, {"method": "ipo", "tau": 0.2, "tokens": "mean"}),
    ({"loss_type": "exo_pair", "label_smoothing": 1e-3}, {"method": "exo_pref", "beta": 0.1}),
    ({"loss_type": "nca_pair"}, {"method": "nca_pair", "beta": 0.1}),
    ({"loss_type": "robust", "label_smoothing": 0.1}, {"method": "rdpo", "flip_rate": 0.1}),
    ({"loss_type": "bco_pair"}, {"method": "bco_pair"}),
    ({"loss_type": "sppo_hard"}, {"method": "sppo", "coefficient": 2.0, "beta": 0.1, "labels": "hard"}),
    ({"loss_type": "aot"}, {"method": "aot"}),
    ({"loss_type": "aot", "label_smoothing": 0.1}, {"method": "aot", "smoothing": 0.1}),
    ({"loss_type": "aot_unpaired"}, {"method": "aot_unpaired"}),
    ({"loss_type": "apo_zero"}, {"method": "apo_zero"}),
    ({"loss_type": "apo_down"}, {"method": "apo_down"}),
    (
        {"loss_type": "discopop", "discopop_tau": 0.5},
        {"method": "discopop", "beta": 0.1, "tau": 0.5},
    ),
    ({"loss_type": "sft"}, {"method": "nll", "tokens": "batch"}),
    ({"loss_type": "sigmoid_norm", "beta": 2.0}, {"method": "dpo_norm", "beta": 2.0}),
    # sums of losses
    (
        {"loss_type": ["sigmoid", "apo_down"], "loss_weights": [0.7, 0.3]},
        {"method": "dpo", "coefficient": 0.7, "plus": {"apo_down": 0.3}},
    ),
    (
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        {"method": "mpo_mixed", "tokens": "batch"},
    ),
    (
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.3]},
        {"method": "dpo", "plus": {"nll": {"coefficient": 0.3, "tokens": "batch"}}},
    ),
    # what goes with several of the losses
    ({"loss_type": "sigmoid", "ld_alpha": 0.4}, {"method": "ld_dpo", "alpha": 0.4}),
    (
        {"loss_type": "sigmoid", "f_divergence_type": "forward_kl"},
        {"method": "f_dpo", "divergence": "forward_kl"},
    ),
    (
        {"loss_type": "sigmoid", "f_divergence_type": "js_divergence"},
        {"method": "f_dpo", "divergence": "jsd"},
    ),
    (
        {
            "loss_type": "sigmoid",
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": 0.8,
        },
        {"method": "f_dpo", "divergence": "alpha", "alpha": 0.2},
    ),
    (
        {"loss_type": "hinge", "f_divergence_type": "js_divergence"},
        {"method": "rso", "gamma": 0.1, "loss": "hinge_norm", "reward": {"f_dpo": {"divergence": "jsd"}}},
    ),
    (
        {"loss_type": "ipo", "f_divergence_type": "forward_kl"},
        {"method": "ipo", "reward": {"f_dpo": {"divergence": "forward_kl"}}},
    ),
    (
        {
            "loss_type": "sigmoid_norm",
            "f_divergence_type": "alpha_divergence",
            "f_alpha_divergence_coef": 0.7,
        },
        {"method": "dpo_norm", "beta": 0.1, "reward": {"f_dpo": {"divergence": "alpha", "alpha": 0.3}}},
    ),
    (
        {"loss_type": "robust", "label_smoothing": 0.2, "ld_alpha": 0.4},
        {"method": "rdpo", "flip_rate": 0.2, "reward": {"ld_dpo": {"alpha": 0.4}}},
    ),
    (
        {"loss_type": "nca_pair", "ld_alpha": 0.0},
        {"method": "nca_pair", "beta": 0.1, "reward": {"ld_dpo": {"alpha": 0.0}}},
    ),
    ({"loss_type": "sigmoid", "use_weighting": True}, {"method": "wpo", "beta": 0.1, "clamp": None}),
    (
        {"loss_type": "robust", "label_smoothing": 0.1, "use_weighting": True},
        {"method": "rdpo", "flip_rate": 0.1, "weight": {"wpo": {"clamp": None}}},
    ),
]

CPO: Table = [
    ({"loss_type": "sigmoid", "label_smoothing": 0.1}, {"method": "cpo", "smoothing": 0.1}),
    ({"loss_type": "hinge", "cpo_alpha": 0.5}, {"method": "cpo", "lam": 0.5, "link": "hinge"}),
    ({"loss_type": "ipo"}, {"method": "cpo_ipo"}),
    (
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0, "cpo_alpha": 0.0},
        {"method": "simpo", "beta": 2.0, "gamma": 1.0},
    ),
    (
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.1},
        {"method": "cpo_simpo", "beta": 2.0, "gamma": 0.5, "lam": 0.1},
    ),
    (
        {"loss_type": "alphapo", "beta": 2.0, "simpo_gamma": 0.5, "alpha": 0.2},
        {"method": "alphapo", "beta": 2.0, "gamma": 0.5, "alpha": 0.2},
    ),
]

ORPO: Table = [({"beta": 0.2}, {"method": "orpo", "lam": 0.2, "text": "whole"})]

KTO: Table = [
    ({"loss_type": "kto"}, {"method": "kto"}),
    (
        {"loss_type": "kto", "desirable_weight": 1.5, "undesirable_weight": 0.5},
        {"method": "kto", "desirable": 1.5, "undesirable": 0.5},
    ),
    ({"loss_type": "apo_zero_unpaired"}, {"method": "apo_zero_unpaired"}),
]

TPO: Table = [
    ({"loss_type": "sigmoid", "beta": 0.2}, {"method": "tpo_triple", "beta": 0.2, "alpha": 1.0}),
    (
        {"loss_type": "hinge", "beta": 0.2},
        {"method": "tpo_triple", "beta": 0.2, "alpha": 1.0, "link": "hinge"},
    ),
    ({"loss_type": "ipo", "beta": 0.2}, {"method": "cpo_ipo", "tau": 0.2, "baseline": "gold"}),
    ({"loss_type": "tpo-l", "beta": 2.0}, {"method": "tpo_l", "beta": 2.0}),
]

PARITY: Mapping[str, Table] = {"DPO": DPO, "CPO": CPO, "ORPO": ORPO, "KTO": KTO, "TPO": TPO}
"""By TRL's trainer."""

NOTES = (
    "Rows are as TRL reads them: `prompt`, `chosen`, `rejected`, or `prompt`, `completion`, `label`.",
    "TRL's TPO calls a response `reference` that is `gold` here.",
    "Averages and quantiles (`aot`, `kto`'s baseline, `nll` with `tokens: batch`) are over the optimizer "
    "step here, whatever the micro-batch; over the micro-batch in TRL.",
    "Reference scores are kept on disk and shared by all runs, without a setting. `sync_ref_model` is "
    "`reference: {kind: moving, alpha: 0.6, every: 512}`.",
    "`loss_weights` are `coefficient` and `plus`; `ld_alpha` and `f_divergence_type` are `reward`, "
    "`use_weighting` is `weight`, for any method that they make sense for.",
    "TRL's `alpha_divergence` coefficient is 1 − `alpha`.",
)


def page() -> str:
    parts = [
        "# Coming from TRL",
        "Every preference loss of TRL 1.16 by its name here. Each line is tested: both libraries give the "
        "same loss and the same gradients on the same batch.",
        "\n".join(f"- {note}" for note in NOTES),
        "## Habits",
        "What one does with TRL's trainers, and what it does here; each line is tested.",
        table(("in TRL", "here"), HABITS.values()),
    ]
    for trainer, entries in PARITY.items():
        rows = [(f"`{spelled(theirs)}`", f"`{{{spelled(ours)}}}`") for theirs, ours in entries]
        parts += [f"## {trainer}Trainer", table((f"{trainer}Config", "objective"), rows)]
    parts += [
        "## Settings",
        "What TRL's configurations take from `transformers.TrainingArguments` is on the page of "
        "[settings](settings.md#training). Where one of the others is given, this is the answer:",
        table(("TRL", "here it is"), [(f"`{name}`", text) for name, text in TRL_NAMES.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def spelled(arguments: Mapping[str, Any]) -> str:
    """As YAML writes it in one line."""
    return ", ".join(f"{name}: {value_of(value)}" for name, value in arguments.items())


def value_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + spelled(value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_of, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
