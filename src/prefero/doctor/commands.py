"""The commands that findings recommend, spelled for the data and the model that were looked at."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Commands:
    """``data``, ``eval_data`` and ``model`` as they were named; what was not is a word in capitals.

    ``inspecting`` are further words of ``prefero inspect``, ``training`` settings of ``prefero train``, that
    read the same rows.
    """

    data: str = "DATA"
    eval_data: str | None = None
    model: str | None = None
    inspecting: tuple[str, ...] = ()
    training: tuple[str, ...] = ()

    def train(self, method: str, **settings: object) -> str:
        """Train with a method. The dots of a setting are double underscores: ``objective__beta=0.2``."""
        words = ["prefero", "train", "--model", self.model or "MODEL", "--data", self.data]
        words += ["--eval-data", self.eval_data] if self.eval_data else []
        words += ["--method", method, "--output", f"runs/{method}", *self.training]
        words += [f"{name.replace('__', '.')}={value}" for name, value in settings.items()]
        return shlex.join(words)

    def on_share(self, method: str, share: float) -> str:
        """Train with a share of the data held out."""
        return replace(self, eval_data=str(share)).train(method)

    def compare(self, *methods: str) -> str:
        """Train with several methods side by side."""
        words = ["prefero", "compare", "--model", self.model or "MODEL", "--data", self.data]
        words += ["--eval-data", self.eval_data] if self.eval_data else []
        return shlex.join(
            [*words, "--methods", ",".join(methods), "--output", "runs/compared", *self.training]
        )

    def without(self, *keys: str) -> str:
        """Write the data without the rows of some findings."""
        words = ["prefero", "inspect", self.data]
        words += ["--eval-data", self.eval_data] if self.eval_data else []
        words += ["--model", self.model] if self.model else []
        return shlex.join([*words, *self.inspecting, "--without", ",".join(keys), "--save", "kept.jsonl"])
