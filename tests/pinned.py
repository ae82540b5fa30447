"""Tables in the repository that pin what the code says, a line each: ``name = value``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pinned:
    """The table in ``file`` of what ``lines`` finds in the code; ``python -m module`` writes it."""

    file: Path
    lines: Callable[[], Mapping[str, str]]
    module: str

    def read(self) -> dict[str, str]:
        return dict(row.split(" = ", 1) for row in self.file.read_text("utf-8").splitlines())

    def write(self) -> None:
        rows = (f"{name} = {value}\n" for name, value in self.lines().items())
        self.file.write_text("".join(rows), encoding="utf-8")

    def changes(self) -> list[str]:
        """How the code differs from the table: ``dpo.beta = 0.2, pinned: 0.1`` for each name."""
        found, pinned = self.lines(), self.read()
        return [
            f"{name} = {found.get(name, 'gone')}, pinned: {pinned.get(name, 'nothing')}"
            for name in sorted({*found, *pinned})
            if found.get(name) != pinned.get(name)
        ]

    def check(self) -> None:
        """Fails with the changes and the command that pins them, if there are any."""
        changes = self.changes()
        assert not changes, "\n".join(
            [*changes, f"if that is meant: python -m {self.module} writes {self.file.name}"]
        )
