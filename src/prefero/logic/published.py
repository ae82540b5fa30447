"""The published losses as preference structures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prefero.logic.structures import PreferenceStructure, structure


@dataclass(frozen=True, slots=True)
class Reading:
    """The structure of a published loss, how it makes one probability of a response's tokens, and what it
    says.

    ``methods`` are the registered methods whose preference term is a link of this structure's log-ratio;
    other terms that they have (a likelihood, mostly) are not part of it.
    """

    structure: PreferenceStructure
    tokens: Literal["mean", "sum"]
    says: str
    methods: tuple[str, ...] = ()


_CPO = structure("M(y_l) -> M(y_w)", "M(y_w) | M(y_l)", "M(y_w) & M(y_l)")

PUBLISHED: Mapping[str, Reading] = {
    "cross_entropy": Reading(structure("M(y_w)"), "mean", "the chosen response is accepted"),
    "unlikelihood": Reading(
        structure("M(y_w) & ~M(y_l)"), "mean", "the chosen response is accepted and the rejected one is not"
    ),
    "f_unlikelihood": Reading(structure("~M(y_l)"), "mean", "the rejected response is not accepted"),
    "cpo": Reading(
        _CPO, "sum", "whoever accepts the rejected response accepts the chosen one", ("cpo", "slic")
    ),
    "simpo": Reading(_CPO, "mean", "as cpo, by means over tokens and with a margin", ("simpo",)),
    "orpo": Reading(
        structure("M(y_l) -> M(y_w)", "M(y_w) ^ M(y_l)"),
        "mean",
        "of responses of which exactly one is accepted, it is the chosen one",
        ("orpo",),
    ),
    "ccpo": Reading(
        structure("M(y_l) -> M(y_w)", "M(y_w) | M(y_l)"),
        "mean",
        "as cpo, but accepting both speaks only for the preference",
    ),
    "dpo": Reading(
        structure(
            "Ref(y_w) & M(y_l) -> Ref(y_l) & M(y_w)",
            "Ref(y_w) & M(y_l) | Ref(y_l) & M(y_w)",
            "M(y_w) & M(y_l) & Ref(y_w) & Ref(y_l)",
        ),
        "sum",
        "where the policy accepts the rejected and the reference the chosen response, the policy accepts the "
        "chosen and the reference the rejected one",
        ("dpo", "ipo"),
    ),
}
"""By the loss's own name. The structures of cross-entropy, unlikelihood, ORPO, cCPO and DPO are those of
Richardson et al., 2024, arXiv 2412.17696."""
