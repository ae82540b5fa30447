"""What every method reads, a line each, in ``needs.txt`` beside this file.

``python -m tests.objectives.pinned_needs`` writes it; read the difference before it is committed: a
signal, model or view more is work that every step does.
"""

from __future__ import annotations

from pathlib import Path

from prefero.objectives import Needs, Signal, dry_run, methods
from tests.pinned import Pinned


def line(needs: Needs) -> str:
    """``chosen rejected | score | policy; reference``: responses, columns, models with their signals; then
    the states that they are scored in, whether the step is seen whole, and each view."""
    models = "; ".join(
        f"{model}: {', '.join(sorted(map(signal_name, signals)))}" if signals else model
        for model, signals in sorted(needs.models.items())
    )
    parts = [" ".join(needs.roles) or "candidates", " ".join(sorted(needs.columns)) or "-", models]
    parts += sorted(set(needs.states.values()))
    parts += [] if needs.exact else ["whole step"]
    parts += [f"{view} ({line(inner)})" for view, inner in sorted(needs.views.items())]
    return " | ".join(parts)


def signal_name(signal: Signal) -> str:
    options = "".join(f" {name}={value}" for name, value in signal.options)
    return signal.name + (f" against {signal.against}" if signal.against else "") + options


def lines() -> dict[str, str]:
    return {key: line(dry_run(method.build())) for key, method in sorted(methods().items())}


NEEDS = Pinned(Path(__file__).with_name("needs.txt"), lines, "tests.objectives.pinned_needs")

if __name__ == "__main__":
    NEEDS.write()
