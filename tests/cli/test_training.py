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
        (["model.lora=8"], "model.lora is 8: a number says nothing here: the rank is {r: 8}"),
        (["training.lr=1e-5"], "no setting is called training.lr: it is training.learning_rate"),
        (["training.optim=adam"], "did you mean 'adamw_torch'?"),
        (["--model", "./nowhere"], "'./nowhere': there is no such folder"),
        (["--model", "earlier"], f"it is the folder of a run, whose model is {Path('earlier/model')}"),
        (["--format", "pear"], "did you mean 'pairs'? A format is the layout"),
    ],
)
def test_a_name_from_elsewhere_is_answered(prefero, short, tmp_path, arguments, message):
    (tmp_path / "earlier" / "model").mkdir(parents=True)
    (tmp_path / "earlier" / "model" / "config.json").write_text("{}")
    done = prefero("train", *short, "--output", "run", *arguments)
    assert done.returncode == 2 and message in done.stderr


def test_held_out_rows_that_are_trained_on_are_told(prefero, short, ingredients, tmp_path, caplog):
    rows = [json.loads(line) for line in (ingredients / "pairs.jsonl").read_text().splitlines()]
    other = {**rows[0], "prompt": "another prompt altogether"}
    again = {**rows[1], "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"] + " more"}
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps(row) + "\n" for row in (other, again, *rows[2:5])), encoding="utf-8")
    quiet = ("--method", "dpo", "training.max_steps=1", "samples=0")
    done = prefero("train", *short, *quiet, "--output", "run", "--eval-data", held)
    assert done.returncode == 0, done.stderr
    assert "held-out data: 4 of 5 rows have a prompt that is trained on, 3 of these with the" in caplog.text
    caplog.clear()
    done = prefero("train", *short, *quiet, "--output", "share", "--eval-data", "0.25")
    assert done.returncode == 0 and "trained on" not in caplog.text


def test_a_bad_row_says_how_training_leaves_it_out(prefero, quick, ingredients, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": null, "rejected": "b"}\n')
    model = ("--model", ingredients / "model", "--data", "rows.jsonl", *quick)
    done = prefero("train", *model, "--method", "dpo", "--output", "run")
    assert done.returncode == 2 and done.stderr.endswith("listed: data.skip_bad_rows=true.\n")


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


def test_the_folder_of_a_run_says_and_has_the_template_of_training(prefero, short, ingredients, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text(
        "{% for m in messages %}[{{ m.role }}] {{ m.content }} [end] {% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    settings = ("--template", "mine.jinja", "--output", "run", "training.max_steps=1")
    done = prefero("train", *short, *settings)
    assert done.returncode == 0, done.stderr
    told = "chat template: mine.jinja, that of training, is saved with the model, which had none"
    assert told in " ".join(done.stdout.split())
    assert told in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    def rows(*arguments: object) -> list[object]:
        shown = prefero("preview", ingredients / "pairs.jsonl", "--json", *arguments)
        assert shown.returncode == 0, shown.stderr
        return [
            [row[key] for key in ("prompt", "prompt_ids", "responses")]
            for row in json.loads(shown.stdout)["rows"]
        ]

    first = rows("--model", ingredients / "model", "--template", "mine.jinja")
    assert first[0][0].startswith("<unk>") and first[0][0].endswith("<unk> <unk>")
    template.unlink()
    assert rows("--model", "run/model") == first
    again = prefero("train", "--model", "run/model", *short[2:], "--output", "second", "training.max_steps=1")
    assert again.returncode == 0, again.stderr
    assert rows("--model", "second/model") == first and "chat template" not in again.stdout
    (tmp_path / "judge.py").write_text("def score(prompt, response): return 0")
    judged = prefero(
        "evaluate", "run", "--data", ingredients / "pairs.jsonl", "--judge", "judge:score", "--prompts", 2,
        "--max-new-tokens", 2,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stderr
    saved = Path("run", "model", "chat_template.jinja")
    assert f"run: prompts are written as it was trained: template {saved}" in judged.stderr
