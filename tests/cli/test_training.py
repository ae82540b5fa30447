"""``prefero train`` and ``prefero compare`` from the outside, on a tiny Llama."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def short(ingredients, quick) -> list[str]:
    return ["--model", str(ingredients / "model"), "--data", str(ingredients / "pairs.jsonl"), *quick]


@pytest.mark.oldest
def test_train_leaves_a_run_a_model_and_a_report(process, prefero, short, tmp_path):
    done = process("train", *short, "--method", "simpo", "--output", "run", "--eval-data", "0.25", "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["method"] == "simpo" and outcome["finished"] and outcome["steps"] == 3
    assert 0 <= outcome["metrics"]["eval/rewards/accuracies"] <= 1
    assert (tmp_path / outcome["model"] / "model.safetensors").is_file()
    assert "Simple Preference Optimization" in (tmp_path / outcome["report"]).read_text()
    assert "run, step 1 of 3: loss" in done.stderr

    again = prefero("train", *short, "--method", "simpo", "--output", "run")
    assert again.returncode == 2 and again.stdout == ""
    (line,) = again.stderr.splitlines()
    assert "run holds another run" in line and "training.resume_from_checkpoint=true" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--overwrite"], "training.overwrite; settings follow the command as key=value"),
        (["--beta", "0.1"], "objective.beta, an argument of the method"),
        (["model.lora.rank=8"], "no key 'rank': it is model.lora.r"),
        (["--model", "./nowhere"], "'./nowhere': there is no such folder"),
        (["--model", "earlier"], f"it is the folder of a run, whose model is {Path('earlier/model')}"),
        (["--format", "pear"], "did you mean 'pairs'? Formats: auto"),
    ],
)
def test_a_name_from_elsewhere_is_answered(prefero, short, tmp_path, arguments, message):
    (tmp_path / "earlier" / "model").mkdir(parents=True)
    (tmp_path / "earlier" / "model" / "config.json").write_text("{}")
    done = prefero("train", *short, "--output", "run", *arguments)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.oldest
def test_compare_trains_every_method_and_shows_them_together(prefero, short, tmp_path):
    done = prefero("compare", *short, "--methods", "dpo, ipo", "--output", "both")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["dpo", "ipo"]
    assert any(row.startswith("reward accuracy") for row in rows)
    assert "Two methods on the same data" in (tmp_path / "both" / "report.html").read_text()


@pytest.mark.parametrize(
    ("rows", "extra", "message"),
    [
        (None, [], "there is no such file"),
        ("", [], "empty"),
        ('{"prompt": "a", "chosen": " b"}\n', [], "rejected"),
        ('{"prompt": "a", "chosen": " b", "rejected": " c"}\n{"prompt": \n', [], "2"),
        ('{"prompt": "a", "chosen": " b", "rejected": " c"}\n', ["--method", "todo"], "tie"),
        (
            '{"prompt": "a", "chosen": " b", "rejected": " c"}\n',
            ["--method", "simpp"],
            "did you mean 'simpo'",
        ),
        ('{"prompt": "a", "chosen": " b", "rejected": " c"}\n', ["objective.betta=1"], "did you mean 'beta'"),
        (
            '{"prompt": "a", "chosen": " b", "rejected": " c"}\n',
            ["training.epoch=1"],
            "did you mean training.num_train_epochs",
        ),
        ('{"prompt": "a", "chosen": " b", "rejected": " c"}\n', ["objective.beta=-1"], "beta"),
    ],
)
def test_bad_input_is_one_message_before_any_training(prefero, ingredients, tmp_path, rows, extra, message):
    data = tmp_path / "data.jsonl"
    if rows is not None:
        data.write_text(rows)
    done = prefero("train", "--model", ingredients / "model", "--data", data, "--output", "run", *extra)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("prefero: ") and message in line
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_how_to_go_on_and_going_on_works(prefero, short, tmp_path, environment):
    long = [*short, "training.num_train_epochs=400", "--output", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "prefero", "train", *long],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.stat().st_size > 0):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130 and out == ""
    assert "training.resume_from_checkpoint=true" in error.splitlines()[-1] and "Traceback" not in error

    steps = max(json.loads(line)["step"] for line in metrics.read_text().splitlines())
    more = [*long, "training.resume_from_checkpoint=true", f"training.max_steps={steps + 5}"]
    resumed = prefero("train", *more, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == steps + 5
