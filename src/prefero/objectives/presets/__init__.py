"""The published methods, by family; importing this package registers them."""

from prefero.objectives.presets.across import (
    rpo_relative,
    rpo_relative_diagonal,
    rpo_relative_uniform,
    rpo_relative_unpaired,
)
from prefero.objectives.presets.length import ld_dpo, r_dpo
from prefero.objectives.presets.lists import dpo_plackett_luce, dpo_rw, exo_rw, mpo_set
from prefero.objectives.presets.pairs import cdpo, dpo, exo_pref, ipo, nll, rdpo, simpo, todo
from prefero.objectives.presets.rewards import dpop, f_dpo, h_dpo, odpo
from prefero.objectives.presets.robust import beta_dpo, dr_dpo, group_robust, wpo
from prefero.objectives.presets.tokens import tdpo1, tdpo2
from prefero.objectives.presets.unpaired import kto

__all__ = [
    "beta_dpo",
    "cdpo",
    "dpo",
    "dpo_plackett_luce",
    "dpo_rw",
    "dpop",
    "dr_dpo",
    "exo_pref",
    "exo_rw",
    "f_dpo",
    "group_robust",
    "h_dpo",
    "ipo",
    "kto",
    "ld_dpo",
    "mpo_set",
    "nll",
    "odpo",
    "r_dpo",
    "rdpo",
    "rpo_relative",
    "rpo_relative_diagonal",
    "rpo_relative_uniform",
    "rpo_relative_unpaired",
    "simpo",
    "tdpo1",
    "tdpo2",
    "todo",
    "wpo",
]
