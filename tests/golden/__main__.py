"""``python -m tests.golden [FILES…]``: one line a vector, then a count.

Without files: every vector of the repository. A vector without an adapter counts as failed, also one that
``not_built.py`` lists.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import torch

from tests.golden.adapters import adapters
from tests.golden.compare import TOLERANCE, errors
from tests.golden.vector import FOLDER, Vector, read


def line(vector: Vector) -> tuple[str, bool]:
    """What to print about a vector, and whether it passed."""
    name = f"{vector.paper} {vector.method}"
    function = adapters().get(vector.key)
    if function is None:
        return f"{name} - FAIL ({vector.origin}: missing, no adapter computes it)", False
    try:
        by_name = errors(vector, function)
    except Exception:
        traceback.print_exc()
        return f"{name} - FAIL ({vector.origin})", False
    worst = max(by_name.values(), default=0.0)
    wrong = [which for which, value in by_name.items() if not value <= TOLERANCE]
    verdict = f"FAIL ({vector.origin}: {', '.join(wrong)})" if wrong else "ok"
    return f"{name} {worst:.1e} {verdict}", not wrong


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    files = list(map(Path, arguments)) or sorted(FOLDER.glob("*.json"))
    vectors = [vector for file in files for vector in read(file)]
    passed = 0
    for vector in vectors:
        text, good = line(vector)
        print(text)
        passed += good
    print(f"{passed} passed, {len(vectors) - passed} failed")
    return 0 if passed == len(vectors) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
