"""Every recipe of the repository says what it could say, and trains, on small models and data under the names
that it has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefero.cli.recipe import read_recipe
from prefero.objectives import from_config
from prefero.training.config import TrainConfig
from tests.docs.blocks import ROOT, read
from tests.docs.commands import lines, obey
from tests.docs.test_code_blocks import train_briefly

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"), key=lambda file: file.name)


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_is_valid(file: Path) -> None:
    assert from_config(TrainConfig.parse(read_recipe(file)).objective).key


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_trains(file: Path, workplace: Path) -> None:
    recipe = read_recipe(file)
    for name in (recipe["model"]["name"], recipe["data"]["train"]):
        if not Path(name).exists():
            pytest.skip(f"nothing small stands for {name}: tests/docs/stand_ins.py")
    folder = train_briefly(recipe, samples=1)
    assert json.loads((folder / "run.json").read_text("utf-8"))["method"]["key"]
    assert any((folder / "model").iterdir())
    assert (folder / "samples.jsonl").is_file()


def test_the_commands_of_the_page_of_recipes_exist(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in read("docs/recipes.md"):
        for words in lines(block.text) if block.language == "bash" else ():
            obey(words, monkeypatch, run=False)
