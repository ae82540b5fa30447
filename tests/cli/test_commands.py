"""The command line around the work: start-up, help, methods, errors, JSON, which process speaks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from prefero.cli import console
from tests.report import folders

HEAVY = ("torch", "transformers", "pydantic", "datasets", "numpy", "matplotlib", "jinja2")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a piece of Python loads."""
    program = f"import sys\n{code}\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("LOADED", 1)[1].split())


def test_help_loads_nothing_heavy():
    call = "try: run()\nexcept SystemExit: pass"
    code = f"sys.argv = ['prefero', '--help']\nfrom prefero.cli.main import run\n{call}"
    assert loaded_by(code) == set()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import prefero; prefero.__version__; prefero.PreferoError; dir(prefero)") == set()


def test_every_public_name_is_there():
    import prefero

    for name in prefero.__all__:
        assert getattr(prefero, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        prefero.nothing  # noqa: B018


@pytest.mark.parametrize("command", [[], ["--help"], ["-h"]])
def test_help_names_every_command(prefero, command):
    done = prefero(*command)
    assert done.returncode == 0 and done.stderr == ""
    for name in ("train", "compare", "methods", "demo", "report"):
        assert name in done.stdout


def test_version(process):
    done = process("--version")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("prefero 0.")


def test_methods_lists_all_and_describes_one(prefero):
    done = prefero("methods")
    assert done.returncode == 0
    assert {"dpo", "simpo", "kto", "todo"} <= {line.split()[0] for line in done.stdout.splitlines() if line}
    one = prefero("methods", "tdpo").stdout
    for needed in (
        "tdpo2",
        "Σ_t KL(π_ref ‖ π)",
        "Zeng et al., 2024",
        "policy, reference",
        "forward_kl",
        "beta",
    ):
        assert needed in one


def test_methods_as_json(prefero):
    keys = [entry["key"] for entry in json.loads(prefero("methods", "--json").stdout)]
    assert keys == sorted(keys)
    for key in keys:
        entry = json.loads(prefero("methods", key, "--json").stdout)
        assert entry["needs"]["models"][0] == "policy" and entry["equation"] and entry["data"]
        assert not any(one["required"] for one in entry["parameters"])


def listed(prefero, *options) -> dict[str, dict]:
    done = prefero("methods", "--json", *options)
    return {entry["key"]: entry for entry in json.loads(done.stdout)}


def test_methods_that_fit_the_data(prefero):
    unpaired = listed(prefero, "--data", "unpaired")
    assert "kto" in unpaired and "dpo" not in unpaired
    pairs = listed(prefero, "--data", "pairs")
    assert {"dpo", "kto"} <= set(pairs) and not {"todo", "odpo", "group_robust"} & set(pairs)
    assert list(pairs).index("dpo") < list(pairs).index("kto"), "those made for pairs come first"
    assert {"odpo", "mpo_set", "dpo"} <= set(listed(prefero, "--data", "scores"))
    assert "group_robust" in listed(prefero, "--data", "pairs", "--data", "group")
    assert "todo" in listed(prefero, "--data", "ties")


def test_methods_that_need_less(prefero):
    free = listed(prefero, "--no-reference")
    assert "simpo" in free and not {"dpo", "tdpo2", "kto"} & set(free)
    offline = listed(prefero, "--no-generation")
    assert "dpo" in offline and all("samples" not in entry["feedback"] for entry in offline.values())


@pytest.mark.parametrize("paper", ["p018", "2405.14734", "meng", "Simple Preference"])
def test_methods_of_a_paper(prefero, paper):
    assert "simpo" in listed(prefero, "--paper", paper)
    assert "dpo" not in listed(prefero, "--paper", paper)


def test_a_method_says_which_others_it_becomes(prefero):
    entry = json.loads(prefero("methods", "cdpo", "--json").stdout)
    assert {"method": "dpo", "at": {"smoothing": 0.0}, "given": {}} in entry["equals"]
    assert "dpo at smoothing = 0.0" in prefero("methods", "cdpo").stdout
    dpo = json.loads(prefero("methods", "dpo", "--json").stdout)
    assert {"method": "cdpo", "at": {"smoothing": 0.0}} in dpo["special_cases_of"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tarin"], "Did you mean 'train'?"),
        (["train", "--mdel", "x"], "--model"),
        (["methods", "dop"], "did you mean 'dpo"),
        (["methods", "--data", "pars"], "did you mean 'pairs'"),
        (["train"], "the recipe lacks model"),
        (
            ["train", "--model", "m", "--data", "d", "--output", "o", "objetive.beta=1"],
            "did you mean 'objective'?",
        ),
        (["train", "missing.yaml"], "there is no recipe missing.yaml"),
        (["train", "a.yaml", "b.yaml"], "one recipe at a time"),
        (["train", "=3"], "is not key=value"),
        (["compare", "--model", "m"], "name the methods to compare"),
        (["report", "nowhere"], "there is no folder nowhere"),
        (["report"], "Missing argument"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(prefero, command, message):
    done = prefero(*command)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("prefero: ") and message in line


def test_a_process_ends_with_the_same_message_and_code(process):
    done = process("report", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "prefero: there is no folder nowhere to report on\n"


def test_developers_get_the_traceback(process):
    done = process("report", "nowhere", PREFERO_TRACEBACK="1")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_a_broken_recipe_is_named_with_its_line(prefero, tmp_path):
    (tmp_path / "recipe.yaml").write_text("model: m\ndata: [1, 2\noutput: x\n")
    done = prefero("train", "recipe.yaml")
    assert done.returncode == 2 and "recipe.yaml, line 3" in done.stderr
    (tmp_path / "recipe.yaml").write_text("- a\n- b\n")
    assert "a recipe is a mapping" in prefero("train", "recipe.yaml").stderr
    assert "did you mean 'recipe.yaml'" in prefero("train", "recpie.yaml").stderr


def test_report(prefero, tmp_path):
    folders.write_run(tmp_path / "run")
    done = prefero("report", "run", "--json")
    assert done.returncode == 0
    page = json.loads(done.stdout)["report"]
    assert (tmp_path / page).read_text().startswith("<!doctype html>")
    assert "page.html" in prefero("report", "run", "-o", "page.html").stdout
    assert (tmp_path / "page.html").is_file()


def test_only_the_main_process_speaks(prefero, tmp_path):
    folders.write_run(tmp_path / "run")
    other = prefero("report", "run", RANK="1", LOCAL_RANK="1")
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "")
    failed = prefero("report", "nowhere", RANK="1", LOCAL_RANK="1")
    assert (failed.returncode, failed.stderr) == (2, "")
    other_machine = prefero("report", "nowhere", RANK="8", LOCAL_RANK="0")
    assert "there is no folder" in other_machine.stderr


def test_json_holds_no_nan(capsys):
    console.show({"loss": float("nan"), "more": [float("inf"), 1.5]}, lambda: "", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"loss": None, "more": [None, 1.5]}
