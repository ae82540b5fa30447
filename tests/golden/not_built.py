"""The vectors of what is not built yet: (paper, method, parameters that tell it from others of the method).

A test fails when one of them passes, so that the list gets shorter; it is not for a vector that has stopped
passing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.golden.vector import Vector

NOT_BUILT: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("p090", "toxic_value_vectors_and_unalign", {}),
    ("p134", "ipl_critic", {}),
    ("p134", "ipl_value_and_policy", {}),
    ("p141", "lore_joint", {}),
    ("p141", "lore_packed_cosine", {}),
    ("p141", "lore_few_shot", {}),
    ("p155", "rtn_fake_quant", {}),
    ("p166", "pdmorl_ddqn", {}),
    ("p166", "pdmorl_td3", {}),
    ("p166", "pdmorl_preference_interpolator", {}),
)


def is_built(vector: Vector) -> bool:
    return not any(
        vector.key == (paper, method) and params.items() <= vector.params.items()
        for paper, method, params in NOT_BUILT
    )
