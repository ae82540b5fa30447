"""Commands and worlds of the laboratory, and how to install it where it is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

INSTALL = 'pip install "prefero[lab]"'

WITHOUT = """
import importlib.metadata, sys
importlib.metadata.entry_points = lambda **selected: []
sys.modules["prefero_lab"] = None
sys.argv = ["prefero", *sys.argv[1:]]
from prefero.cli.main import run
run()
"""


def without_laboratory(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    "command",
    [
        ["reproduce"],
        ["reproduce", "dpo", "--seeds", "3"],
        ["discover", "-o", "x"],
        ["world"],
        ["world", "digits", "x"],
    ],
)
def test_a_missing_laboratory_is_one_message_with_its_installation(command: list[str]) -> None:
    done = without_laboratory(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"prefero: prefero {command[0]} is part of the laboratory: {INSTALL}\n"


def test_help_names_the_commands_of_a_missing_laboratory() -> None:
    shown = without_laboratory("--help")
    assert shown.returncode == 0
    for name in ("discover", "reproduce", "world", "not installed"):
        assert name in " ".join(shown.stdout.split())


def test_the_attribute_of_earlier_versions_says_where_papers_are() -> None:
    import prefero

    with pytest.raises(
        AttributeError, match=r"import prefero_lab\.papers \(pip install \"prefero\[lab\]\"\)"
    ):
        prefero.papers  # noqa: B018


def test_a_laboratory_of_another_version_breaks_its_own_commands_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib.metadata import EntryPoint

    import typer
    from typer.main import get_command

    from prefero.cli import laboratory
    from prefero.errors import PreferoError

    broken = EntryPoint("reproduce", "prefero_lab.no_such_module:reproduce", "prefero.commands")
    monkeypatch.setattr(laboratory, "entry_points", lambda group: [broken])
    app = typer.Typer()
    laboratory.add_commands(app)
    with pytest.raises(PreferoError, match="cannot be loaded: No module named"):
        get_command(app)(["reproduce", "dpo", "--seeds", "3"], standalone_mode=False)


def test_worlds_are_listed(prefero) -> None:
    listed = {one["name"]: one["summary"] for one in json.loads(prefero("world", "--json").stdout)}
    assert {"bandit", "binary_strings", "digits", "rewarded", "shapes"} <= set(listed)
    assert all(listed.values())
    assert "handwritten digits" in prefero("world").stdout.lower()


def test_a_world_writes_a_start_model_and_rows(prefero, tmp_path) -> None:
    done = prefero("world", "bandit", "out", "--pairs", "5", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["files"] == ["held_out.jsonl", "model", "sampled.jsonl", "train.jsonl"]
    rows = (tmp_path / "out" / "held_out.jsonl").read_text().splitlines()
    assert 0 < len(rows) <= 5 and set(json.loads(rows[0])) >= {"prompt", "chosen", "rejected"}


def test_help_of_a_world_has_its_options(prefero) -> None:
    done = prefero("world", "digits", "--help")
    assert (
        done.returncode == 0 and "usage: prefero world digits" in done.stdout and "--held-out" in done.stdout
    )
    assert "NAME" in prefero("world", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digts", "out"], "did you mean 'digits'?"),
        (["bandit"], "required: folder"),
        (["bandit", "out", "--pears", "5"], "--pears"),
        (["bandit", "out", "--pairs", "few"], "invalid int value: 'few'"),
    ],
)
def test_a_mistake_is_one_message(prefero, arguments: list[str], message: str) -> None:
    done = prefero("world", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("prefero: ") and message in line
