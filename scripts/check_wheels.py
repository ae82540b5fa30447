"""Build both wheels, install them in an empty environment outside the repository, and use them there.

    python scripts/check_wheels.py              # several minutes, one of them the demo
    python scripts/check_wheels.py --keep DIR   # leaves wheels, environment and runs in DIR

The library is installed alone first: what its commands write, what its wheel holds, that the laboratory is
missed in one line, and that every distribution which pip brought along is needed. Then the laboratory is
added. Whatever fails ends the script with what was run and what it said.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECTS = {"prefero": ROOT, "prefero_lab": ROOT / "lab"}
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")
NO_SOURCES = ("__pycache__", "*.egg-info", "*.pyc", ".*")

INSTALL = 'pip install "prefero[lab]"'
PAPER = "dpo_tabular"

INGREDIENTS = """
import json
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<unk>", "<eos>", *(f"w{i}" for i in range(40))]
tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>")
fast.save_pretrained("model")
config = LlamaConfig(
    vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=64, bos_token_id=None, eos_token_id=1,
)
LlamaForCausalLM(config).save_pretrained("model")
with open("pairs.jsonl", "w") as file:
    for i in range(24):
        row = {"prompt": f"w{i} w{i + 1}", "chosen": f" w{i + 2}", "rejected": f" w{i + 3} w{i + 4}"}
        file.write(json.dumps(row) + "\\n")
"""

WHERE = """
import importlib.util, json, prefero
absent = [name for name in ("prefero_lab", "tests", "lab", "benchmarks") if importlib.util.find_spec(name)]
print(json.dumps({"file": prefero.__file__, "version": prefero.__version__, "absent": absent}))
"""

UNNEEDED = """
import ast, json, pathlib, sys
from importlib.metadata import distributions, packages_distributions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

import prefero

installed = {canonical(one.metadata["Name"]): one for one in distributions()}
imported = set()
for file in pathlib.Path(prefero.__file__).parent.rglob("*.py"):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.add(node.module.split(".")[0])
homes = packages_distributions()
needed, seen = {"pip", "setuptools", "prefero"}, set()
waiting = [(canonical(name), frozenset()) for module in imported for name in homes.get(module, ())]
while waiting:
    name, extras = waiting.pop()
    if name not in installed or (name, extras) in seen or name == "prefero":
        continue
    seen.add((name, extras))
    needed.add(name)
    for line in installed[name].requires or ():
        one = Requirement(line)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            waiting.append((canonical(one.name), frozenset(one.extras)))
print(json.dumps({"installed": len(installed), "unneeded": sorted(set(installed) - needed)}))
"""


class Failed(Exception):
    """What a step should have done and did not."""


@dataclass(frozen=True)
class Environment:
    """An environment of its own, and an empty folder in which its commands run."""

    folder: Path
    work: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def pip(self, *arguments: object) -> None:
        run(self.python, "-m", "pip", "--disable-pip-version-check", *arguments)

    def prefero(self, *arguments: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """The command ``prefero`` as a user calls it."""
        return run(self.folder / "bin" / "prefero", *arguments, expect=expect, cwd=self.work)

    def tell(self, code: str) -> str:
        """What a program prints in this environment, without anything of the caller's."""
        return run(self.python, "-I", "-c", code, cwd=self.work).stdout


def run(*command: object, expect: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120", "TERM": "dumb"}
    if cwd is not None:
        environment["PREFERO_CACHE"] = str(cwd / "references")
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    if done.returncode != expect:
        said = (done.stdout + done.stderr)[-4000:]
        raise Failed(f"{' '.join(words)[:300]}\nended with {done.returncode}, not {expect}:\n{said}")
    return done


def require(holds: object, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


@contextmanager
def step(what: str) -> Iterator[None]:
    print(f"{what} …", end="", flush=True)
    began = time.monotonic()
    yield
    print(f" {time.monotonic() - began:.0f} s", flush=True)


def built(package: str, folder: Path) -> Path:
    """The wheel of a project, built from a copy that holds its sources and nothing else: what an earlier
    build left in the checkout would go into the wheel."""
    copy = folder / "sources" / package
    copy.mkdir(parents=True)
    for name in SOURCES:
        source = PROJECTS[package] / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns(*NO_SOURCES))
        elif source.is_file():
            shutil.copy(source, copy / name)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "wheels", copy)
    (wheel,) = (folder / "wheels").glob(f"{package}-[0-9]*.whl")
    return wheel


def check_contents(package: str, wheel: Path) -> None:
    """The package with its data, the metadata with the licence, and nothing else."""
    settings = tomllib.loads((PROJECTS[package] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = PROJECTS[package] / "src"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = message_from_string(archive.read(metadata).decode())
        information = metadata.removesuffix("METADATA")
        entries = archive.read(f"{information}entry_points.txt").decode()
    packed = {name for name in names if not name.startswith(information)}
    expected = {
        str(file.relative_to(source))
        for file in (source / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.name != "README.md"
    }
    require(not expected - packed, f"{wheel.name} lacks {', '.join(sorted(expected - packed))}")
    require(not packed - expected, f"{wheel.name} also has {', '.join(sorted(packed - expected))}")
    require(f"{information}licenses/LICENSE" in names, f"{wheel.name} has no LICENSE")
    require(about["Name"] == settings["name"] and about["Version"] == settings["version"], "name or version")
    require(about["License-Expression"] == "Apache-2.0", f"{wheel.name} does not say its licence")
    require(about["Requires-Python"] == settings["requires-python"], f"{wheel.name}: Requires-Python")
    for url in about.get_all("Project-URL") or ():
        require("example" not in url, f"{wheel.name} has a placeholder as an address: {url}")
    for line in (*settings.get("scripts", {}), *settings.get("entry-points", {}).get("prefero.worlds", {})):
        require(line in entries, f"{wheel.name} has no entry point {line}")


def check_library(at: Environment) -> None:
    """What a user can do with the library alone."""
    with step("prefero --help, methods, methods dpo"):
        told = at.prefero("--help").stdout
        require(all(name in told for name in ("train", "compare", "report", "reproduce")), told)
        require("simpo" in at.prefero("methods").stdout, "prefero methods does not list simpo")
        require(
            "Direct Preference Optimization" in at.prefero("methods", "dpo").stdout, "prefero methods dpo"
        )
        where = json.loads(at.tell(WHERE))
        require(Path(where["file"]).is_relative_to(at.folder), f"prefero comes from {where['file']}")
        require(not where["absent"], f"the wheel of the library brings {', '.join(where['absent'])}")
    with step("prefero train, prefero report"):
        at.tell(INGREDIENTS)
        short = ("training.examples_per_step=6", "training.learning_rate=1e-3", "training.use_cpu=true")
        data = ("--model", "model", "--data", "pairs.jsonl", "--eval-data", "0.25", "--output", "run")
        outcome = json.loads(at.prefero("train", *data, *short, "--json").stdout)
        require(outcome["finished"] and outcome["steps"] == 3, f"prefero train: {outcome}")
        require((at.work / "run" / "model" / "model.safetensors").is_file(), "prefero train left no model")
        at.prefero("report", "run", "--output", "page.html")
        page = (at.work / "page.html").read_text(encoding="utf-8")
        require("<style>" in page and "Direct Preference Optimization" in page, "the report lacks its style")
    with step("prefero inspect"):
        at.prefero("inspect", "pairs.jsonl", "--model", "model")
    with step("prefero demo"):
        at.prefero("demo", "--output", "demo", "--json")
        require((at.work / "demo" / "report.html").is_file(), "prefero demo wrote no report")
    with step("commands of the laboratory say how to install it"):
        for command in (["reproduce"], ["reproduce", PAPER], ["discover"], ["world"]):
            said = at.prefero(*command, expect=2)
            require(said.stdout == "" and INSTALL in said.stderr, f"prefero {command}: {said.stderr}")
    with step("every distribution that pip brought is needed"):
        at.pip("check")
        found = json.loads(at.tell(UNNEEDED))
        require(not found["unneeded"], f"nothing needs {', '.join(found['unneeded'])}")


def check_laboratory(at: Environment) -> None:
    with step("prefero reproduce, world bandit"):
        listed = json.loads(at.prefero("reproduce", "--json").stdout)
        require(any(paper["key"] == PAPER for paper in listed), f"prefero reproduce does not list {PAPER}")
        at.prefero("reproduce", PAPER, "--seeds", "2", "--report")
        require((at.work / "reproduced" / "report.html").is_file(), "prefero reproduce wrote no report")
        at.prefero("world", "bandit", "bandit", "--pairs", "20")
        require((at.work / "bandit" / "train.jsonl").is_file(), "prefero world bandit wrote no rows")


def check(folder: Path) -> None:
    at = Environment(folder / "environment", folder / "elsewhere")
    at.work.mkdir(parents=True)
    wheels = {}
    for package in PROJECTS:
        with step(f"wheel of {package}"):
            wheels[package] = built(package, folder)
            check_contents(package, wheels[package])
    with step("install the library alone"):
        run(sys.executable, "-m", "venv", at.folder)
        at.pip("install", "-q", "-c", ROOT / "constraints.txt", wheels["prefero"])
    check_library(at)
    with step("install the laboratory, which needs nothing that the library does not"):
        at.pip("install", "-q", "--no-index", "--find-links", folder / "wheels", "prefero[lab]")
        at.pip("check")
    check_laboratory(at)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder to work in, and to keep")
    keep = parser.parse_args().keep
    try:
        if keep is not None:
            check(keep.resolve())
        else:
            with tempfile.TemporaryDirectory(prefix="prefero-wheels-") as folder:
                check(Path(folder))
    except Failed as failure:
        sys.exit(f"\n{failure}")
    print("both wheels work outside the repository")


if __name__ == "__main__":
    main()
