"""The folder that a run leaves writes the prompts of training, for transformers and for the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prefero.cli.preview import token_reader
from prefero.data.chat import Writing
from prefero.data.formats import load_examples
from prefero.evaluate.reading import RunReading
from prefero.models.kind import Reading
from prefero.models.loading import ModelSource, kind_of
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import dry_run
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.data.test_training_templates import FORGETS, tokenizer_of, untagged
from tests.vision import PROCESSORS, TEMPLATE, vision_model

ASKED = {"role": "user", "content": "What is 2 + 2?"}
THOUGHT = "<think>\nI add.\n</think>\n\n4."

FILE = (
    "{% for m in messages %}[{{ m.role }}]<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<|im_start|>{% endif %}"
)
DATED = "{{ strftime_now('%Y') }} " + FILE
WITH_OPTION = "{% if short %}Be short. {% endif %}" + FILE

NEEDS = dry_run(from_config("dpo"))


def answers(*turns: str) -> list[dict[str, str]]:
    """Turns of the assistant, with the question between them."""
    said = [{"role": "assistant", "content": turn} for turn in turns]
    return [turn for one in said for turn in (ASKED, one)][1:]


ONE = {"prompt": [ASKED], "chosen": answers("4."), "rejected": answers("5.")}
LATER = {"prompt": [ASKED, *answers(THOUGHT), ASKED], "chosen": answers("4."), "rejected": answers("5.")}
GOES_ON = {"prompt": [ASKED], "chosen": answers(THOUGHT, THOUGHT), "rejected": answers("5.")}


@pytest.fixture
def start(tmp_path: Path) -> str:
    """A model whose own template forgets the thoughts of earlier turns, of the family Qwen3."""
    tokenizer = tokenizer_of("qwen3", FORGETS + untagged("qwen3"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=512, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    return str(tmp_path / "start")


def trained(
    model: Any, rows: list[dict[str, Any]], output: Path, training: dict[str, Any] | None = None, **data: Any
) -> Path:
    file = output.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {"use_cpu": True, "max_steps": 1, "warmup_steps": 0, **(training or {})}
    return train(
        {
            "model": model,
            "data": {"train": str(file), **data},
            "training": settings,
            "samples": 0,
            "output": output,
        }
    )


def tokens(model: str | Path, rows: list[dict[str, Any]], template: str = "auto", **options: Any) -> Any:
    """The rows as a model of that name is trained on them."""
    reading = Reading(writing=Writing(template, options))
    data = kind_of("auto", ModelSource(str(model))).read(load_examples(rows), NEEDS, reading)
    return [[(cell.context.tolist(), cell.response.tolist()) for cell in row.cells] for row in data]


def contexts(folder: Path, rows: list[dict[str, Any]], **options: Any) -> list[list[int]]:
    """The prompts as transformers alone writes them for a folder."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, **options)["input_ids"]
        for row in rows
    ]


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("template", ["file", "glm-4.5", "auto"])
def test_every_folder_of_a_run_has_the_template_of_training(
    start: str, tmp_path: Path, template: str, lora: bool
) -> None:
    rows = [ONE, LATER, *([GOES_ON] if template == "auto" else [])]
    name = template
    if template == "file":
        name = str(tmp_path / "mine.jinja")
        Path(name).write_text(FILE, encoding="utf-8")
    first = tokens(start, rows, name)
    model = {"name": start, "lora": {"r": 2}} if lora else start
    run = trained(model, rows, tmp_path / "run", {"save_steps": 1}, template=name)
    for folder in (run / "model", run / "checkpoint-1"):
        assert contexts(folder, rows) == [row[0][0] for row in first]
        assert tokens(folder, rows) == first
    (note,) = record(run)["notes_on_prompts"]
    named = "qwen3" if template == "auto" else name
    assert note.startswith(f"chat template: {named}, that of training, is saved with the model, in the place")

    # evaluations read it there, whatever has become of the file
    if template == "file":
        Path(name).write_text("", encoding="utf-8")
    reading = RunReading.of(run)
    assert reading is not None and tokens(start, rows, reading.writing.template) == first

    # the next run goes on with it, merged or not
    adapter = {"adapter": "merge"} if lora else {}
    second = trained({"name": str(run / "model"), **adapter}, rows, tmp_path / "second")
    assert contexts(second / "model", rows) == [row[0][0] for row in first]
    assert record(second)["notes_on_prompts"] == []
    if lora:
        again = {"name": str(run / "model"), "adapter": "merge", "lora": {"r": 2}}
        third = trained(again, rows, tmp_path / "third", template="qwen3")
        written = [row[0][0] for row in tokens(start, rows, "qwen3")]
        assert contexts(third / "model", rows) == contexts(third / "base", rows) == written


def test_a_run_with_the_models_own_template_changes_none(start: str, tmp_path: Path) -> None:
    run = trained(start, [ONE, LATER], tmp_path / "run")
    saved = (run / "model" / "chat_template.jinja").read_text(encoding="utf-8")
    assert saved == (Path(start) / "chat_template.jinja").read_text(encoding="utf-8")
    assert record(run)["notes_on_prompts"] == [] and not record(run)["template_saved"]
    reading = RunReading.of(run)
    assert reading is not None and reading.writing.template == "auto"


def test_what_a_template_cannot_hold_is_said(start: str, tmp_path: Path) -> None:
    for name, source in {"dated": DATED, "option": WITH_OPTION}.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    dated = trained(start, [ONE], tmp_path / "a", template=str(tmp_path / "dated"))
    (_, note) = record(dated)["notes_on_prompts"]
    assert f"writes the date, which was {record(dated)['date']} in training" in note
    assert (dated / "model" / "chat_template.jinja").read_text(encoding="utf-8") == DATED
    template = {"template": str(tmp_path / "option"), "chat_template_kwargs": {"short": True}}
    option = trained(start, [ONE], tmp_path / "b", **template)
    (_, note) = record(option)["notes_on_prompts"]
    assert note.startswith("chat_template_kwargs: ") and note.endswith('give these again: {"short": true}')
    first = tokens(start, [ONE], template["template"], short=True)  # type: ignore[arg-type]
    assert contexts(option / "model", [ONE], short=True) == [row[0][0] for row in first]
    without = trained(start, [ONE], tmp_path / "c", template="none")
    (note,) = record(without)["notes_on_prompts"]
    assert "training used none, but the saved tokenizer still has its own" in note


def test_a_resumed_run_is_the_same_run(start: str, tmp_path: Path) -> None:
    run = trained(start, [ONE], tmp_path / "run", {"save_steps": 1, "max_steps": 2}, template="glm-4.5")
    resumed = {"max_steps": 2, "save_steps": 1, "resume_from_checkpoint": str(run / "checkpoint-1")}
    first = (run / "model" / "model.safetensors").read_bytes()
    assert trained(start, [ONE], run, resumed, template="glm-4.5") == run
    assert (run / "model" / "model.safetensors").read_bytes() == first


def test_what_was_given_in_python_stays_as_it_is(start: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(start)
    own = tokenizer.chat_template
    trainer = PreferenceTrainer(
        start, [ONE], processing_class=tokenizer, template="glm-4.5", use_cpu=True, max_steps=1,
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    trainer.save_model(str(tmp_path / "saved"))
    assert tokenizer.chat_template == own
    assert contexts(tmp_path / "saved", [LATER]) == [row[0][0] for row in tokens(start, [LATER], "glm-4.5")]


@pytest.mark.parametrize("family", ["llava", "idefics3", "qwen2-vl"])
def test_processors_have_the_template_of_training(family: str, tmp_path: Path) -> None:
    processor = PROCESSORS[family]()
    file = tmp_path / "mine.jinja"
    file.write_text("a " + TEMPLATE.replace("IMAGE", "<image>"), encoding="utf-8")
    trainer = PreferenceTrainer(
        vision_model(family, processor), [{"prompt": "what colour", "chosen": "red", "rejected": "no"}],
        processing_class=processor, template=str(file), use_cpu=True, output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    trainer.save_model(str(tmp_path / "saved"))
    turns = [{"role": "user", "content": [{"type": "text", "text": "what colour"}]}]
    context = trainer.prepared.train[0].cells[0].context.tolist()  # type: ignore[index]
    loader = AutoProcessor if family != "qwen2-vl" else type(processor)
    for saved in (
        loader.from_pretrained(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
    ):
        text = saved.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert text.startswith("a ") and processor.tokenizer.encode(text) == context


def test_the_template_is_that_of_the_training_data(start: str) -> None:
    """Held-out data are written as those before them were."""
    kind = kind_of("auto", ModelSource(start))
    kind.read(load_examples([ONE]), NEEDS, Reading())
    held_out = kind.read(load_examples([LATER, ONE]), NEEDS, Reading())
    assert not any("template:" in note for note in held_out.summary.notes)
    assert kind.writing.template == "auto" and kind.saved_template is None
    going_on = kind.read(load_examples([GOES_ON]), NEEDS, Reading())
    assert going_on.writing.template == "own" and kind.writing.template == "auto"
    assert any("the chat template leaves out" in note for note in going_on.summary.notes)
    kind = kind_of("auto", ModelSource(start))
    kind.read(load_examples([GOES_ON]), NEEDS, Reading())
    held_out = kind.read(load_examples([ONE]), NEEDS, Reading())
    assert held_out.writing.template == kind.writing.template == "qwen3"


def test_a_preview_has_the_template_that_later_rows_need(start: str) -> None:
    rows = [ONE, ONE, ONE, GOES_ON]
    read = token_reader(start, "dpo", 2, Writing(), lambda: load_examples(rows), None, "cut_response")
    preview = read(load_examples(rows[:2]))
    assert preview.template.startswith("qwen3, a training template") and len(preview.rows) == 2
    assert (
        preview.rows
        == token_reader(start, "dpo", 2, Writing("qwen3"), lambda: load_examples([]), None, "cut_response")(
            load_examples(rows[:2])
        ).rows
    )
