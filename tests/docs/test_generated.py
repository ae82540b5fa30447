"""Pages that follow from the code say what the code says."""

from __future__ import annotations

import pytest
import typer

from docs import generate, survey_pages
from prefero.cli.main import app
from prefero.cli.recipe import load_yaml
from prefero.data.schema import SCHEMA
from prefero.objectives import from_config
from prefero.training.config import OWN, Settings
from prefero.training.monitors import MONITORS
from prefero.training.vocabulary import REFUSED, REPLACED, TRL_NAMES
from prefero_lab.papers.record import read
from prefero_lab.papers.results import evidence_digest
from prefero_lab.papers.survey import papers
from prefero_lab.papers.verdicts import weakest
from tests.docs.blocks import blocks


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    return generate.kept()


def test_the_pages_are_current(kept: dict[str, str]) -> None:
    assert not generate.outdated(kept), "make pages writes them again"


def test_every_paper_has_a_page_with_what_would_refute_it() -> None:
    made = survey_pages.pages()
    for key, paper in papers().items():
        page = made[f"{key}.md"]
        for one in paper.evidence:
            assert one.statement in page and one.refuted_by in page
        assert paper.title in page and f"prefero reproduce {key}\n" in page
        assert f"[`{key}`]({key}.md)" in made["index.md"]


@pytest.mark.parametrize("key", read(survey_pages.MEASURED))
def test_the_results_in_the_repository_are_of_the_evidence_as_it_is(key: str) -> None:
    """Evidence that is added or changed has to be measured, by whoever changes it. Moving or rewording it
    keeps its digest."""
    entry, evidence = read(survey_pages.MEASURED)[key], papers()[key].evidence
    remedy = f"prefero reproduce {key} --record lab/measured.json measures it"
    assert entry["digest"] == evidence_digest(papers()[key]), remedy
    seeds = [list(range(one.judged_from, one.judged_from + one.seeds)) for one in evidence]
    assert entry["measured"]["seeds"] == seeds, remedy
    assert len(entry["evidence"]) == len(evidence)
    assert entry["verdict"] == weakest(one["verdict"] for one in entry["evidence"])
    assert f"**{entry['verdict']}**" in survey_pages.pages()[f"{key}.md"]


def test_the_page_of_commands_has_every_command_and_option(kept: dict[str, str]) -> None:
    page = kept["commands.md"]
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"## prefero {name}\n" in page
        for one in command.params:
            if one.param_type_name == "option" and one.name != "help":
                assert one.opts[0] in page


def test_a_page_of_a_method_is_whole(kept: dict[str, str]) -> None:
    for part in (
        "−log σ(β/|y_w|",
        "arxiv.org/abs/2405.14734",
        "`gamma`",
        "llama-3-8b-instruct",
        "chosen, rejected",
    ):
        assert part in kept["methods/simpo.md"]


def test_every_column_and_setting_has_its_place(kept: dict[str, str]) -> None:
    for name, column in SCHEMA.items():
        assert (f"### {name}\n" in kept["annotations.md"]) == bool(column.fields)
    for name in Settings.model_fields:
        described = f"| `training.{name}` |" if name in OWN else f"`{name}`"
        assert described in kept["settings.md"]
    for name in (*REPLACED, *REFUSED):
        assert f"| `{name}` |" in kept["settings.md"]
    for name in TRL_NAMES:
        assert f"| `{name}` |" in kept["trl.md"]
    for monitor in MONITORS:
        assert f"## {monitor.title}\n" in kept["monitors.md"]


def test_every_block_of_a_page_of_a_method_is_part_of_a_recipe(kept: dict[str, str]) -> None:
    for name, page in kept.items():
        if name.startswith("methods/"):
            for block in blocks(name, page):
                assert (
                    from_config(load_yaml(block.text)["objective"]).key == name[len("methods/") : -len(".md")]
                )
