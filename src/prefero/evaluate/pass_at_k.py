"""Problems solved within k attempts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from prefero.errors import PreferoError
from prefero.evaluate.intervals import Mean, mean


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """1 − C(n − c, k)/C(n, k): the chance that k of n attempts, drawn without replacement, hold a correct
    one. The unbiased estimate of Chen et al., 2021, arXiv 2107.03374; a product, so that no number is large.

    Raises:
        PreferoError: more correct attempts than attempts, or fewer attempts than ``k``.
    """
    if not 0 <= correct <= attempts:
        raise PreferoError(f"{correct} of {attempts} attempts are said to be correct.")
    if not 1 <= k <= attempts:
        raise PreferoError(f"k is {k}; expected from 1 to the number of attempts, {attempts}.")
    if attempts - correct < k:
        return 1.0
    return 0.0 - math.expm1(
        math.fsum(math.log1p(-k / i) for i in range(attempts - correct + 1, attempts + 1))
    )


def pass_rate(problems: Iterable[Sequence[bool]], k: int, confidence: float = 0.95) -> Mean:
    """pass@k over problems, each given by whether its attempts were correct, with the interval over problems.

    ``k`` equal for all, the numbers of attempts need not be.
    """
    return mean([pass_at_k(len(tries), sum(map(bool, tries)), k) for tries in problems], confidence)


def all_pass_at_k(attempts: int, correct: int, k: int) -> float:
    """C(c, k)/C(n, k): the chance that k of n attempts are all correct, the counterpart that asks for
    reliability (pass^k). Yao et al., 2024, arXiv 2406.12045."""
    if not 0 <= correct <= attempts:
        raise PreferoError(f"{correct} of {attempts} attempts are said to be correct.")
    if not 1 <= k <= attempts:
        raise PreferoError(f"k is {k}; expected from 1 to the number of attempts, {attempts}.")
    if correct < k:
        return 0.0
    return math.prod((correct - i) / (attempts - i) for i in range(k))
