"""Every code block of README, CONTRIBUTING and docs does what it says, on small models and data that stand
where it names large ones.

Python runs, the blocks of a page one after another; so do commands that take seconds, others have to parse;
recipes are trained for a step, parts of recipes checked; rows of data are read; a diff is of lines that are
in the code; text below a command is what it prints. What is not run says why in a comment before it.
"""

from __future__ import annotations

import builtins
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import prefero
from prefero.cli.main import run
from prefero.cli.recipe import load_yaml
from prefero.data.formats import load_examples
from prefero.objectives import from_config
from prefero.training.config import TrainConfig
from tests.docs.blocks import PAGES, ROOT, Block, blocks, read
from tests.docs.commands import lines, obey


def run_python(block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    code = compile("\n" * (block.line - 1) + block.text, str(ROOT / block.page), "exec", dont_inherit=True)
    builtins.exec(code, names)


def run_shell(block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    for words in lines(block.text):
        obey(words, patch)


PART = {"model": "Qwen/Qwen3-0.6B", "data": "pairs.jsonl", "output": "runs/part"}


def check_recipe(block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    recipe = load_yaml(block.text)
    if {"model", "data", "output"} <= set(recipe):
        train_briefly(recipe)
    else:
        from_config(TrainConfig.parse({**PART, **recipe}).objective)


def train_briefly(recipe: Mapping[str, Any], samples: int = 0) -> Path:
    """One optimizer step of a recipe, on a few examples, with small images."""
    brief = {"max_steps": 1, "examples_per_step": 4, "overwrite": True}
    model = recipe["model"]
    if isinstance(model, Mapping) and "resolution" in model.get("options", {}):
        model = {**model, "options": {**model["options"], "resolution": 16}}
    training = {**recipe.get("training", {}), **brief}
    return prefero.train({**recipe, "model": model, "training": training, "samples": samples})


def read_rows(block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    rows = Path("rows.jsonl")
    rows.write_text("".join(json.dumps(row) + "\n" for row in documents(block.text)), "utf-8")
    assert load_examples(rows), block.place


def documents(text: str) -> list[Any]:
    """JSON documents, one behind the other."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while place < len(text.rstrip()):
        document, place = decoder.raw_decode(text, place)
        found.append(document)
        place += len(text[place:]) - len(text[place:].lstrip())
    return found


def find_lines(block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    file = ROOT / "nothing"
    for line in block.text.splitlines():
        if line.startswith("+++ b/"):
            file = ROOT / line.removeprefix("+++ b/")
        elif line.startswith("+") and line.strip("+ "):
            assert line[1:] in file.read_text("utf-8"), f"{file} has no line {line[1:]!r}"


def look_at_output(block: Block, names: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    """What stands below a line ``$ prefero …`` is what it prints; other text is somebody else's."""
    command, *expected = block.text.splitlines()
    if not command.startswith("$ prefero "):
        return
    patch.setattr(sys, "argv", shlex.split(command.removeprefix("$ ")))
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit):
        run()
    assert "".join(" ".join(expected).split()) in "".join(printed.getvalue().split()), printed.getvalue()


LANGUAGES: Mapping[str, Callable[[Block, dict[str, Any], pytest.MonkeyPatch], None]] = {
    "python": run_python,
    "bash": run_shell,
    "yaml": check_recipe,
    "json": read_rows,
    "diff": find_lines,
    "text": look_at_output,
}
"""What becomes of a block."""


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {"__name__": "documentation"}
    for block in read(page):
        if block.not_run:
            continue
        assert block.language in LANGUAGES, f"{block.place}: a block is one of {', '.join(LANGUAGES)}"
        try:
            LANGUAGES[block.language](block, names, monkeypatch)
        except BaseException as error:
            error.add_note(f"in the {block.language} block at {block.place}")
            raise


def test_few_blocks_are_not_run() -> None:
    every = [block for page in PAGES for block in read(page)]
    not_run = [block for block in every if block.not_run]
    assert len(not_run) <= len(every) // 20, [block.place for block in not_run]


def test_a_wrong_block_is_found(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks themselves: each of these has one mistake."""
    for text in (
        "```python\nimport prefero\nprefero.method('dpo', gamma=1)\n```",
        "```bash\nprefero train --modle Qwen/Qwen3-0.6B\n```",
        "```bash\nprefero reproduce dpo --seed 3\n```",
        "```bash\nprefero world digts runs/digits\n```",
        "```bash\nmake cake\n```",
        "```bash\ntorchrun --nproc-per-node 8 -m prefero train recipes/simpo.yaml training.paralel=fsdp\n```",
        "```bash\npython -m benchmarks train --pears 40\n```",
        "```bash\npip install 'prefero[wings]'\n```",
        "```yaml\nobjective: {method: dpo, betta: 0.1}\n```",
        "```yaml\ntraining: {learning_rat: 1e-5}\n```",
        '```json\n{"prompt": "a", "chosen": "b"}\n```',
        "```diff\n+++ b/README.md\n+not there at all\n```",
        "```text\n$ prefero methods dop\nno such line\n```",
    ):
        (block,) = blocks("a page", f"\n{text}\n")
        with pytest.raises(BaseException, match=r".") as found:
            LANGUAGES[block.language](block, {}, monkeypatch)
        assert not isinstance(found.value, KeyboardInterrupt)


def test_every_link_of_a_page_leads_somewhere() -> None:
    lost = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not (ROOT / page).parent.joinpath(target).exists():
                lost.append(f"{page}: {target}")
    assert not lost
