"""Several sources of examples as one, each with the weight that it has in an epoch."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

from prefero.data.examples import Example, Examples
from prefero.errors import PreferoError


def mixed(sources: Sequence[Examples], weights: Sequence[float], seed: int = 0) -> Examples:
    """The examples of all sources, those of the first one first; each keeps its origin.

    ``weights`` say how often an example of each source is taken in an epoch: 1 once, 2 twice, 0.5 half of
    them, and 1.5 all of them once and half of them twice. The halves are drawn with ``seed``, so that they
    are the same in every run. Raises :class:`PreferoError` for a weight that is not above 0, or at which a
    source has no example.
    """
    items: list[Example] = []
    dropped: Counter[str] = Counter()
    for number, (examples, weight) in enumerate(zip(sources, weights, strict=True)):
        if not 0 < weight < math.inf:
            raise PreferoError(f"{examples.name}: the weight is {weight:g}; expected a number above 0.")
        whole, rest = divmod(weight, 1)
        count = round(rest * len(examples))
        if not whole and not count:
            raise PreferoError(
                f"{examples.name}: at the weight {weight:g} none of its {len(examples)} examples is taken. "
                "Raise the weight, or leave the source out."
            )
        drawn = set(random.Random(f"{seed} {number}").sample(range(len(examples)), count))
        for time in range(int(whole) + 1):
            chosen = range(len(examples)) if time < whole else sorted(drawn)
            items += [examples[place] for place in chosen]
        dropped.update(examples.dropped)
    return Examples(
        items,
        " + ".join(examples.name for examples in sources),
        ", ".join(dict.fromkeys(examples.format for examples in sources)),
        tuple(message for examples in sources for message in examples.skipped),
        dict(dropped),
        skips_bad_rows=any(examples.skips_bad_rows for examples in sources),
    )
