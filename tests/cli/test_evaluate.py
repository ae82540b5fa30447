from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.cli.conftest import Command
from tests.models.diffusion.pipelines import diffusion, pixel_unet
from tests.training.tiny import saved_model, tiny_tokenizer

JUDGE = """
def long(prompt, response):
    return len(response)

def longer(prompt, first, second):
    return 0.6 + 0.4 * (len(first) > len(second)) - 0.4 * (len(first) < len(second))

def one(prompt):
    return 0
"""


@pytest.fixture
def folder(ingredients: Path, tmp_path: Path) -> Path:
    (tmp_path / "toy_judges.py").write_text(JUDGE, encoding="utf-8")
    saved_model(tmp_path / "other", seed=1)
    return tmp_path


def rows(output: str) -> list[dict[str, object]]:
    return json.loads(output)["rows"]


def test_two_models_by_a_function(prefero: Command, ingredients: Path, folder: Path) -> None:
    arguments = (
        "evaluate",
        ingredients / "model", f"second={folder / 'other'}", "--data", ingredients / "pairs.jsonl",
        "--judge", "toy_judges:long", "--reference", ingredients / "model", "--max-new-tokens", 8,
        "--samples", 2, "--output", folder / "out", "--json",
    )  # fmt: skip
    done = prefero(*arguments)
    assert done.returncode == 0, done.stderr
    first, second = rows(done.stdout)
    assert (first["method"], second["method"]) == ("model", "second")
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert second["kl"] > 0.1
    for row in (first, second):
        assert 0 <= row["win_rate"] <= 1
        assert {
            "length_controlled_win_rate",
            "length",
            "characters",
            "score",
            "distinct_2",
            "self_bleu",
        } <= set(row)
        assert row["interval"]["win_rate"][0] <= row["win_rate"] <= row["interval"]["win_rate"][1]
        assert row["wins"] + row["ties"] + row["losses"] == 48
    assert json.loads((folder / "out" / "evaluation.json").read_text())["rows"] == rows(done.stdout)

    # what was judged can be summed up again
    again = prefero("evaluate", "--judge", folder / "out" / "judgements.jsonl", "--json")
    assert again.returncode == 0, again.stderr
    for stored, row in zip(rows(again.stdout), (first, second), strict=True):
        assert all(row[name] == pytest.approx(stored[name]) for name in stored if name != "interval")

    # the same command gives the same numbers
    assert rows(prefero(*arguments).stdout) == [first, second]


def test_a_pairwise_judge_is_asked_in_both_orders(prefero: Command, ingredients: Path, folder: Path) -> None:
    """Its liking for the first place, 0.6 for ties, drops out."""
    done = prefero(
        "evaluate", ingredients / "model", "--data", ingredients / "pairs.jsonl",
        "--judge", "toy_judges:longer", "--baseline", "chosen",
        "--max-new-tokens", 6, "-o", folder / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "win rate" in done.stdout
    judged = [json.loads(line) for line in (folder / "out" / "judgements.jsonl").read_text().splitlines()]
    for one in judged:
        gap = len(one["response"]) - len(one["baseline"])
        assert one["preference"] == pytest.approx(0.5 + 0.4 * (gap > 0) - 0.4 * (gap < 0))


def test_a_reward_model_judges(prefero: Command, ingredients: Path, folder: Path) -> None:
    config = LlamaConfig(
        vocab_size=30, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, eos_token_id=0, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    tiny_tokenizer().save_pretrained(folder / "reward")
    done = prefero(
        "evaluate", ingredients / "model", "--data", ingredients / "pairs.jsonl",
        "--judge", folder / "reward", "--max-new-tokens", 6, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = rows(done.stdout)
    assert "score" in row
    no_judge = prefero(
        "evaluate", ingredients / "model", "--data", ingredients / "pairs.jsonl", "--judge", folder / "other"
    )
    assert no_judge.returncode == 2
    assert "a sequence classifier with one label, this one is LlamaForCausalLM" in no_judge.stderr


def test_the_reward_of_a_run_judges(prefero: Command, ingredients: Path, folder: Path) -> None:
    trained = prefero(
        "train", "--model", ingredients / "model", "--data", ingredients / "pairs.jsonl", "--method", "dpo",
        "-o", folder / "run", "training.max_steps=2", "training.learning_rate=0.01",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    done = prefero(
        "evaluate", folder / "run", "--data", ingredients / "pairs.jsonl", "--judge", folder / "run",
        "--baseline", ingredients / "model", "--reference", ingredients / "model", "--max-new-tokens", 6,
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = rows(done.stdout)
    assert row["method"] == "run"
    assert row["kl"] > 0
    # the implicit reward is beta times the log-ratio, whose mean over own samples estimates the divergence
    assert row["score"] == pytest.approx(0.1 * row["kl"], abs=0.1 * row["kl"] + 0.05)


def test_rows_are_read_as_the_run_read_its_own(prefero: Command, ingredients: Path, folder: Path) -> None:
    names = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    rows = map(json.loads, (ingredients / "pairs.jsonl").read_text(encoding="utf-8").splitlines())
    data = folder / "named.jsonl"
    data.write_text("".join(json.dumps({names[k]: v for k, v in row.items()}) + "\n" for row in rows))
    columns = ",".join(f"{name}={column}" for name, column in names.items())
    trained = prefero(
        "train", "--model", ingredients / "model", "--data", data, "--columns", columns, "--max-length", 40,
        "-o", folder / "run", "training.max_steps=1", "samples=0",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    command = (
        "evaluate", folder / "run", "--data", data, "--judge", "toy_judges:long", "--max-new-tokens", 4,
        "--prompts", 4,
    )  # fmt: skip
    done = prefero(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["notes"] == [
        f"rows are read as those of {folder / 'run'}: columns {columns}",
        f"{folder / 'run'}: prompts are written as it was trained: max_length 40",
        "no length-controlled win rate of run: it takes 10 prompts, and there are 4",
    ]
    assert f"prefero: rows are read as those of {folder / 'run'}" in done.stderr
    given = prefero(*command, "--columns", "prompt=questoin")
    assert given.returncode == 2 and "did you mean 'question'" in given.stderr


def test_judgements_of_alpaca_eval_are_read(prefero: Command, tmp_path: Path) -> None:
    judged = [
        {
            "instruction": f"task {i}",
            "output_1": "x" * (20 + i % 7),
            "output_2": "x" * (25 + i % 5),
            "generator_1": "base",
            "generator_2": "mine",
            "preference": [1.0, 2.0, 1.4, 0.0][i % 4],
        }
        for i in range(40)
    ]
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(judged), encoding="utf-8")
    (row,) = rows(prefero("evaluate", "--judge", file, "--json").stdout)
    assert row["method"] == "mine"
    assert row["win_rate"] == pytest.approx((0 + 1 + 0.4 + 0.5) / 4)
    gamed = ["index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    gamed += [f"{i},{i % 2},{i % 3 - 1},{0.1 * (i % 9)},False" for i in range(40)]
    anchors = tmp_path / "df_gamed.csv"
    anchors.write_text("\n".join(gamed), encoding="utf-8")
    (tied,) = rows(prefero("evaluate", "--judge", file, "--anchors", anchors, "--json").stdout)
    assert tied["length_controlled_win_rate"] != row["length_controlled_win_rate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m"], "name the judge"),
        (["m", "--judge", "toy_judges:long"], "give models, and --data"),
        (["--judge", "nothing_here"], "which --judge nothing_here are not"),
        (["x=", "--data", "DATA", "--judge", "toy_judges:long"], "'x=' names no model"),
        (["=m", "--data", "DATA", "--judge", "toy_judges:long"], "'=m' names no model"),
        (["--judge", "stored.jsonl", "--baseline", "b"], "--baseline is of models that respond"),
        (["--judge", "stored.jsonl", "--samples", "1"], "--samples is of models that respond"),
        (["m", "--judge", "stored.jsonl"], "give no models beside it"),
        (["m", "--data", "DATA", "--judge", "toy_judges:lung"], "no function 'lung'; did you mean 'long'?"),
        (["m", "--data", "DATA", "--judge", "toy_judges:one"], "takes 1 argument (prompt)"),
        (["m", "--data", "DATA", "--judge", "no_such_module:f"], "cannot be imported"),
        (["a/m", "b/m", "--data", "DATA", "--judge", "toy_judges:long"], "two models are called 'm'"),
        (["--judge", "stored.jsonl"], "there is no such file"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    prefero: Command, ingredients: Path, folder: Path, arguments: list[str], message: str
) -> None:
    data = str(ingredients / "pairs.jsonl")
    done = prefero("evaluate", *[data if one == "DATA" else one for one in arguments])
    assert done.returncode == 2
    assert message in done.stderr


def test_a_judgement_that_is_no_probability_is_told_with_its_place(prefero: Command, tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    file.write_text('{"prompt": "a", "preference": 1.5}\n', encoding="utf-8")
    done = prefero("evaluate", "--judge", file)
    assert done.returncode == 2
    assert "judged.jsonl, row 1, field 'preference': found 1.5" in done.stderr


def test_the_table_says_what_the_win_rates_are_against(
    prefero: Command, ingredients: Path, folder: Path
) -> None:
    command = (
        "evaluate", f"a={ingredients / 'model'}", "--data", ingredients / "pairs.jsonl",
        "--judge", "toy_judges:long", "--max-new-tokens", 4, "--prompts", 4,
    )  # fmt: skip
    chosen = prefero(*command)
    assert "win rates are against the chosen responses of the data" in chosen.stdout
    for width, first in (("60", ["win", "rate"]), ("200", ["a"])):
        done = prefero(*command, "--reference", folder / "other", COLUMNS=width)
        assert done.returncode == 0, done.stderr
        assert f"winratesareagainsttheresponsesof{folder / 'other'}" in "".join(done.stdout.split())
        assert "model " in done.stdout  # a title stays in one line
        assert any(line.split()[: len(first)] == first for line in done.stdout.splitlines())
    assert (
        f"responses of the baseline, {folder / 'other'}" in done.stderr and "responses of a\n" in done.stderr
    )
    told = prefero(*command, "--reference", folder / "other", "--json")
    assert json.loads(told.stdout)["baseline"] == str(folder / "other")


def annotated(folder: Path, name: str, shift: int, **more: object) -> Path:
    """Judgements of AlpacaEval's form of one model, against one baseline."""
    judged = [
        {
            "instruction": f"task {i}",
            "output_1": "x" * (20 + i % 7), "output_2": "x" * (25 + (i + shift) % 5),
            "generator_1": "base", "generator_2": name, "annotator": "gpt",
            "preference": [1.0, 2.0, 1.4, 0.0, 1.1][(i + i // 7 + shift) % 5], **more,
        }
        for i in range(60)
    ]  # fmt: skip
    file = folder / name / "annotations.json"
    file.parent.mkdir()
    file.write_text(json.dumps(judged), encoding="utf-8")
    return file


def test_difficulties_are_fitted_kept_and_read(prefero: Command, tmp_path: Path) -> None:
    a, b, c = (annotated(tmp_path, name, shift) for shift, name in enumerate("abc"))
    file = tmp_path / "difficulties.json"
    done = prefero("evaluate", "--judge", a, "--judge", b, "--difficulties", file, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "are fitted for each model from the judgements of 1 other model, which is rough" in done.stderr
    assert f"wrote the difficulties of 60 prompts, by 2 models, to {file}" in done.stderr
    measured = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [row["difficulties"] for row in measured["rows"]] == [
        {"source": "fitted", "models": 1, "missing": 0}
    ] * 2
    assert any("which is rough" in note for note in measured["notes"])
    assert not (tmp_path / "out" / "judgements.jsonl").exists()

    written = file.read_bytes()
    known = prefero("evaluate", "--judge", c, "--difficulties", file, "--json")
    assert known.returncode == 0, known.stderr
    (row,) = rows(known.stdout)
    assert row["difficulties"] == {"source": "known", "models": 2, "missing": 0}
    assert file.read_bytes() == written
    (folder,) = rows(prefero("evaluate", "--judge", c.parent, "--difficulties", file, "--json").stdout)
    assert folder == row

    absent = prefero("evaluate", "--judge", c, "--json")
    (without,) = rows(absent.stdout)
    assert without["difficulties"] == {"source": "absent"}
    assert without["length_controlled_win_rate"] != row["length_controlled_win_rate"]
    assert "the length-controlled win rate of c is without difficulties of prompts" in absent.stderr
    together = rows(prefero("evaluate", "--judge", tmp_path, "--json").stdout)
    assert [one["method"] for one in together] == ["a", "b", "c"]
    assert "win rates are against the responses of base" in prefero("evaluate", "--judge", a).stdout


def test_difficulties_that_do_not_fit_cost_no_responses(
    prefero: Command, ingredients: Path, folder: Path
) -> None:
    command = (
        "evaluate", f"a={ingredients / 'model'}", f"b={folder / 'other'}",
        "--data", ingredients / "pairs.jsonl", "--max-new-tokens", 4, "--baseline", "b",
        "--difficulties", folder / "difficulties.json",
    )  # fmt: skip
    done = prefero(*command, "--judge", "toy_judges:long", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["baseline"] == str(folder / "other")  # a name stands for its model
    other = prefero(*command, "--judge", "toy_judges:longer")
    assert other.returncode == 2 and "fitted with the judge 'toy_judges:long'" in other.stderr
    assert "responses of" not in other.stderr
    # where none can be fitted, what was judged is kept all the same
    (folder / "same_judges.py").write_text("def equal(prompt, response):\n    return 1\n", encoding="utf-8")
    new = (*command[:-1], folder / "new.json", "--judge", "same_judges:equal", "-o", folder / "out")
    none = prefero(*new)
    assert none.returncode == 2 and "no judgements to fit difficulties from" in none.stderr
    assert "50.0%" in none.stdout and (folder / "out" / "judgements.jsonl").is_file()


def test_judgements_that_do_not_belong_together_are_refused(prefero: Command, tmp_path: Path) -> None:
    a, b = annotated(tmp_path, "a", 0), annotated(tmp_path, "b", 1, annotator="claude")
    for arguments, message in (
        (("--judge", a, "--judge", b), "the judgements are of 2 judges: claude, gpt"),
        (("--judge", a, "--judge", a.parent.parent), "both have judgements of 'a'"),
        (("--judge", a, "--judge", "m:f"), "--judge m:f is no file of judgements, and there are 2 judges"),
        (("--judge", a, "--difficulties", a), "annotations.json"),
        (
            (
                "--judge",
                annotated(tmp_path, "c", 1, instruction_difficulty=1.0),
                "--difficulties",
                "new.json",
            ),
            "the judgements have difficulties of their own, so that none are fitted for new.json",
        ),
        (("--judge", a, "--difficulties", "d", "--anchors", "x.csv"), "leave --difficulties out"),
        (("--judge", a, "--difficulties", tmp_path), "is a folder"),
    ):
        done = prefero("evaluate", *arguments)
        assert done.returncode == 2
        assert message in done.stderr


IMAGES = """
import numpy

def bright(prompt, image):
    return float(numpy.asarray(image).mean())

def text(prompt, response):
    return len(response.strip())
"""


def test_models_that_draw_images(prefero: Command, folder: Path) -> None:
    (folder / "image_judges.py").write_text(IMAGES, encoding="utf-8")
    model = folder / "denoiser"
    pixel_unet().save_pretrained(model)
    diffusion().save_pretrained(model)
    lines = []
    for n in range(3):
        for name, value in (("chosen", 80 * n), ("rejected", 200)):
            Image.new("L", (8, 8), value).save(folder / f"{n}-{name}.png")
        named = {name: f"{n}-{name}.png" for name in ("chosen", "rejected")}
        lines.append(json.dumps({"class": n, **named}) + "\n")
    (folder / "images.jsonl").write_text("".join(lines), encoding="utf-8")
    command = ("evaluate", f"a={model}", f"b={model}", "--data", folder / "images.jsonl")
    done = prefero(*command, "--judge", "image_judges:bright", "-o", folder / "out")
    assert done.returncode == 0, done.stderr
    assert "win rate" in done.stdout and "length" not in done.stdout
    judged = [json.loads(line) for line in (folder / "out" / "judgements.jsonl").read_text().splitlines()]
    assert len(judged) == 6 and all((folder / "out" / one["image"]).is_file() for one in judged)
    again = prefero("evaluate", "--judge", folder / "out", "--json")
    stored = json.loads((folder / "out" / "evaluation.json").read_text())["rows"]
    assert [one["win_rate"] for one in rows(again.stdout)] == [one["win_rate"] for one in stored]
    refused = prefero(*command, "--judge", "image_judges:text")
    assert refused.returncode == 2 and "has no attribute 'strip'" in refused.stderr
    settings = prefero(*command, "--judge", "image_judges:bright", "--max-new-tokens", 4)
    assert settings.returncode == 2 and "leave --max-new-tokens" in settings.stderr
