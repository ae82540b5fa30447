"""The page ``docs/recipes.md``: every file of ``recipes/``, with what its comments say before it.

``python -m docs.generate`` writes it.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"

COMMAND = re.compile(r"^ {2,}(?=prefero |python |torchrun |make )")


def page() -> str:
    parts = [
        "# Recipes",
        "A recipe is a YAML file that `prefero train` and `prefero compare` take; `key=value` behind it "
        "changes a setting. These are the recipes in `recipes/`. [All keys](settings.md) are on their own "
        "page; an unknown one is refused before anything is loaded, with the nearest known one.",
        "```bash\nprefero train recipes/dpo-lora.yaml objective.beta=0.2 output=runs/beta-0.2\n```",
    ]
    for file in sorted(FOLDER.glob("*.yaml")):
        parts += [f"## {file.stem}", recipe(file.read_text("utf-8"))]
    return "\n\n".join(parts) + "\n"


def recipe(text: str) -> str:
    """The comment at the head as text, its commands as a block, and the rest as it is."""
    lines = text.splitlines()
    head = next((at for at, line in enumerate(lines) if not line.startswith("#")), len(lines))
    said: list[list[str]] = []
    for line in (line.removeprefix("#").removeprefix(" ") for line in lines[:head]):
        command = bool(COMMAND.match(line))
        if not said or command != bool(COMMAND.match(said[-1][0])):
            said.append([])
        said[-1].append(line)
    parts = [
        "```bash\n" + "\n".join(map(str.strip, block)) + "\n```"
        if COMMAND.match(block[0])
        else " ".join(map(str.strip, block))
        for block in said
    ]
    return "\n\n".join([*parts, "```yaml\n" + "\n".join(lines[head:]) + "\n```"])
