"""Lines of shell blocks: short ones of ``prefero`` are run, long ones have to be commands that exist, with
options that they have."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

import pytest
import typer

from prefero.cli.main import app, run
from prefero.cli.train import configuration
from prefero.training.config import TrainConfig
from prefero_lab.papers.survey import chosen
from tests.docs.blocks import ROOT

RUN = ("methods", "train", "compare", "sweep", "evaluate", "inspect", "report")
"""The commands of ``prefero`` that take seconds on small models; ``reproduce`` does where it only lists."""


def lines(text: str) -> Iterator[list[str]]:
    """The words of every command."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words:
            yield words


def obey(words: list[str], patch: pytest.MonkeyPatch, *, run: bool = True) -> None:
    """Run a command, or refuse one that could not be run; without ``run`` only the latter."""
    program, *arguments = words
    if program not in PROGRAMS:
        raise AssertionError(f"{shlex.join(words)}: no test knows the program {program!r}")
    if program == "prefero" and not run:
        launched(arguments)
    else:
        PROGRAMS[program](arguments, patch)


def prefero(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    command = next((one for one in arguments if not one.startswith("-")), "")
    if command in RUN or arguments == ["reproduce"] or arguments[0].startswith("-"):
        patch.setattr(sys, "argv", ["prefero", *quick(arguments)])
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 0, f"prefero {shlex.join(arguments)} ended with {ended.value.code}"
    else:
        launched(arguments)


def quick(arguments: list[str]) -> list[str]:
    """Without samples, which take longest, and over what a block before has left: blocks of a page are often
    ways to the same run. What the arguments say themselves comes later, and wins."""
    if arguments[0] not in ("train", "compare", "sweep"):
        return arguments
    resumes = any(one.startswith("training.resume_from_checkpoint=") for one in arguments)
    again = [] if resumes else ["training.overwrite=true"]
    return [arguments[0], "samples=0", *again, *arguments[1:]]


def parsed(known: typer.Typer, arguments: list[str]) -> dict[str, Any]:
    """What the command is told; it exists and has these options, and is not run."""
    group = typer.main.get_command(known)
    context = group.make_context("command", list(arguments))
    rest = [*context._protected_args, *context.args]
    if rest:
        name, command, rest = group.resolve_command(context, rest)
        assert command is not None, f"there is no command {name}"
        return command.make_context(name, rest, parent=context).params
    return {}


def python(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    assert arguments[0] == "-m", f"python {shlex.join(arguments)}: only modules are known"
    module, *rest = arguments[1:]
    if module == "prefero":
        return prefero(rest, patch)
    if module == "benchmarks":
        from benchmarks.__main__ import app as benchmarks

        parsed(benchmarks, rest)
        return None
    if module == "pip":
        return pip(rest, patch)
    assert find_spec(module) is not None, f"there is no module {module}"


def make(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    unknown = [one for one in arguments if "=" not in one and one not in targets]
    assert not unknown, f"the Makefile has no target {unknown}"


def pip(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extras in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
        unknown = set(extras.split(",")) - set(project["optional-dependencies"])
        assert not unknown, f"pyproject.toml has no extra {unknown}"


def torchrun(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """Options of torchrun, and a recipe that ``prefero train`` would take."""
    from torch.distributed.run import get_args_parser

    known = get_args_parser().parse_args(arguments)
    assert known.training_script == "prefero"
    launched(known.training_script_args)


def accelerate(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import launch_command_parser

    assert arguments[0] == "launch"
    known = launch_command_parser().parse_args(arguments[1:])
    assert known.training_script == "prefero"
    launched(known.training_script_args)


def launched(arguments: list[str]) -> None:
    """The command and its options exist, as do papers, areas and worlds; a recipe with settings is valid."""
    told = parsed(app, arguments)
    if arguments[0] == "reproduce":
        chosen(told["keys"] or (), told["area"])
    if arguments[0] == "world":
        assert told["name"] in entry_points(group="prefero.worlds").names, f"no world {told['name']}"
    if arguments[0] == "train" and len(arguments) > 1 and not arguments[1].startswith("-"):
        TrainConfig.parse(configuration([one for one in arguments[1:] if not one.startswith("-")]))


PROGRAMS: dict[str, Callable[[list[str], pytest.MonkeyPatch], None]] = {
    "prefero": prefero,
    "python": python,
    "python3": python,
    "make": make,
    "pip": pip,
    "torchrun": torchrun,
    "accelerate": accelerate,
}
