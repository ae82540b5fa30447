"""Linear rewards of few features from comparisons: Bradley and Terry's likelihood with a penalty.

Shi et al., 2025, arXiv 2505.19770: a reward model can use that the reward is sparse, and then needs a number
of comparisons that grows with the logarithm of the number of features; DPO's policy cannot.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def penalised_weights(
    differences: Float[Tensor, "pair feature"], *, lasso: float = 0.0, ridge: float = 0.0, steps: int = 3000
) -> Float[Tensor, " feature"]:
    """The w with the smallest mean of −log σ(w·(φ_w − φ_l)) + ``lasso`` ‖w‖₁ + ``ridge`` ‖w‖²/2.

    ``differences`` are features of the chosen response less those of the rejected one. By accelerated
    proximal gradient steps. Without a penalty, and with fewer comparisons than tell features apart, there is
    no smallest: then it is where so many ``steps`` end.
    """
    curvature = torch.linalg.matrix_norm(differences, 2).square() / (4 * len(differences)) + ridge
    rate = 1 / curvature
    here = ahead = differences.new_zeros(differences.shape[1])
    for step in range(steps):
        slope = ridge * ahead - torch.sigmoid(-differences @ ahead) @ differences / len(differences)
        following = F.softshrink(ahead - rate * slope, float(lasso * rate))
        moved = following - here
        ahead, here = following + step / (step + 3) * moved, following
        if float(moved.abs().max()) < 1e-12:
            break
    return here
