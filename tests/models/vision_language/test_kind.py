"""Vision-language models in the trainer: exact losses, corrupted images, adapters, the cache, samples."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor

from prefero.data.formats import load_examples
from prefero.errors import PreferoError
from prefero.models.kind import Reading
from prefero.models.loading import kind_of
from prefero.models.vision_language.kind import VisionLanguage
from prefero.objectives import from_config
from prefero.objectives.needs import dry_run
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.data.test_image_prompts import ASKED, SHOWN, row, turn
from tests.models.vision_language.test_scoring import counted
from tests.vision import PROCESSORS, image, vision_model


def rows(count: int = 6, **more: Any) -> list[dict[str, Any]]:
    return [row(image(n), **more) for n in range(count)]


def pair(family: str = "llava", **options: Any) -> tuple[Any, Any, VisionLanguage]:
    processor = PROCESSORS[family]()
    model = vision_model(family, processor)
    return model, processor, kind_of("auto", model, processor, options or None)


def read(kind: VisionLanguage, source: Any, method: str = "dpo", **reading: Any) -> Any:
    needs = dry_run(from_config({"method": method}))
    return kind.read(source, needs, Reading(**reading))


def by_hand(model: Any, processor: Any, images: list[Any], prompt: list[Any], words: str) -> torch.Tensor:
    """Log-probabilities of a response's tokens, from the processor and the model alone."""
    template = processor.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    made = processor(text=[template], images=[images], add_special_tokens=False, return_tensors="pt")
    response = processor.tokenizer(f"{words} </s>", add_special_tokens=False)["input_ids"]
    ids = torch.cat((made.pop("input_ids"), torch.tensor([response])), 1)
    made.pop("attention_mask")
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in made:
            made[name] = torch.nn.functional.pad(made[name], (0, len(response)))
    logits = model(input_ids=ids, use_cache=False, **made).logits[0, -len(response) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.parametrize("family", PROCESSORS)
def test_log_probabilities_are_those_of_processor_and_model(family: str) -> None:
    model, processor, kind = pair(family)
    untouched = copy.deepcopy(model)
    images = [[image(0)], [image(1, (48, 32)), image(2)]]
    data = read(kind, [row(*some) for some in images])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind.adapt(model)
    with torch.no_grad():
        logps = kind.score(model, kind.collate(list(data), [0, 0]))[""].logps
        for place, some in enumerate(images):
            prompt = [turn("user", *[SHOWN] * len(some), ASKED)]
            for response, words in enumerate(("it was red", "no")):
                expected = by_hand(untouched, processor, some, prompt, words)
                found = logps[place, response]
                assert (found[: len(expected)] - expected).abs().max() < 5e-6
                assert (found[len(expected) :] == 0).all()


def test_a_pair_and_its_corrupted_image_are_seen_once_each() -> None:
    model, _, kind = pair()
    data = read(kind, rows(1), "mdpo")
    kind.adapt(model)
    passes = counted(model)
    scored = kind.score(model, kind.collate(list(data), [0]))
    assert passes == [2]
    assert scored["corrupted"].logps.shape[1] == 1
    assert not torch.equal(scored["corrupted"].logps[0, 0], scored[""].logps[0, 0])


def trainer(folder: Path, data: Any = None, **settings: Any) -> PreferenceTrainer:
    processor = PROCESSORS["llava"]()
    return PreferenceTrainer(
        vision_model("llava", processor),
        rows() if data is None else data,
        processing_class=processor,
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "disable_tqdm": True,
            "optim": "sgd",
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "learning_rate": 0.05,
            "examples_per_step": 3,
            "tokens_per_row": 64,
            "logging_steps": 1,
            "save_strategy": "no",
            **settings,
        },
    )


def losses(run: PreferenceTrainer) -> list[float]:
    run.train()
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def test_mdpo_starts_at_three_times_log_two(tmp_path: Path) -> None:
    """The reference sees the very image that the policy sees, from the disk cache too."""
    first, *_ = losses(trainer(tmp_path / "run", objective="mdpo", max_steps=1, reference="cached"))
    assert first == pytest.approx(3 * 0.6931472, abs=1e-5)


def test_training_is_the_same_with_a_cached_and_a_frozen_reference(tmp_path: Path) -> None:
    cached, frozen = (
        losses(trainer(tmp_path / kind, objective="mdpo", max_steps=4, reference=kind))
        for kind in ("cached", "frozen")
    )
    assert cached == pytest.approx(frozen, abs=1e-5)
    assert cached[-1] < cached[0]


@pytest.mark.parametrize(
    ("train", "fixed"),
    [("text", {"vision_tower", "multi_modal_projector"}), ("projector", {"vision_tower"}), ("all", set())],
)
def test_parts_that_are_not_trained_stay(train: str, fixed: set[str], tmp_path: Path) -> None:
    processor = PROCESSORS["llava"]()
    model = vision_model("llava", processor)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    run = trainer(tmp_path / "run", kind=kind_of("auto", model, processor, {"train": train}), max_steps=1)
    run.train()
    moved = {
        name.split(".")[1]
        for name, weight in run.model.named_parameters()
        if name.startswith("model.") and not torch.equal(weight, before[name])
    }
    assert moved == {"vision_tower", "multi_modal_projector", "language_model"} - fixed


def test_low_rank_adapters_go_to_the_text_and_are_their_own_reference(tmp_path: Path) -> None:
    adapters = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=VisionLanguage.lora_targets)
    run = trainer(tmp_path / "run", objective="mdpo", peft_config=adapters, max_steps=2)
    first, second = losses(run)
    assert first == pytest.approx(3 * 0.6931472, abs=1e-5) and second != first
    trained = [name for name, weight in run.model.named_parameters() if weight.requires_grad]
    assert trained and all("language_model" in name and "lora" in name for name in trained)


def test_gradients_do_not_depend_on_what_shares_a_row(tmp_path: Path) -> None:
    runs = [
        trainer(tmp_path / str(size), objective="mdpo", max_steps=2, tokens_per_row=size)
        for size in (64, 512)
    ]
    for run in runs:
        run.train()
    one, other = (torch.cat([p.flatten() for p in run.model.parameters()]) for run in runs)
    assert (one - other).abs().max() < 1e-6


def test_resuming_is_exact(tmp_path: Path) -> None:
    settings = {"objective": "mdpo", "max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path / "whole", **settings)
    whole.train()
    later = trainer(tmp_path / "whole", **settings)
    later.train(tmp_path / "whole" / "checkpoint-2")
    for (name, one), other in zip(whole.model.named_parameters(), later.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_recipe_leaves_a_run_folder_with_samples(tmp_path: Path) -> None:
    processor = PROCESSORS["llava"]()
    vision_model("llava", processor).save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")
    (tmp_path / "seen").mkdir()
    lines = []
    for number in range(6):
        image(number).save(tmp_path / "seen" / f"{number}.png")
        lines.append(json.dumps(row(f"seen/{number}.png")) + "\n")
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    folder = train(
        {
            "model": {"name": str(tmp_path / "start"), "options": {"corruption": "blank"}},
            "data": {"train": str(tmp_path / "rows.jsonl"), "eval": 0.34},
            "objective": {"method": "mdpo"},
            "training": {"max_steps": 2, "arguments": {"use_cpu": True}},
            "samples": 2,
            "output": str(tmp_path / "run"),
        }
    )
    assert json.loads((folder / "run.json").read_text())["model"]["kind"] == "vision_language"
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2 and all({"prompt", "before", "after"} <= set(sample) for sample in samples)
    assert samples[0]["prompt"].startswith("[1 images]")
    AutoModelForImageTextToText.from_pretrained(folder / "model")
    assert AutoProcessor.from_pretrained(folder / "model").image_token == "<image>"


class TestCorruptedImages:
    def corrupted(self, seed: int = 0, source: Any = None, **options: Any) -> list[bytes]:
        kind = pair(**options)[2]
        data = read(kind, rows() if source is None else source, "mdpo", seed=seed)
        keys = [set(example.images) for example in data]
        own = [set(example.images) for example in read(kind, rows() if source is None else source)]
        (corrupted,) = {len(both - one) for both, one in zip(keys, own, strict=True)}
        assert corrupted == 1
        return [data[n].images[next(iter(keys[n] - own[n]))][0].digest for n in range(len(keys))]

    def test_the_run_decides_what_is_seen(self) -> None:
        assert self.corrupted(0) == self.corrupted(0)
        assert not set(self.corrupted(0)) & set(self.corrupted(1))

    @pytest.mark.parametrize("name", ["crop", "noise", "mask", "blur", "shuffle", "other"])
    def test_every_corruption_shows_another_image_of_each(self, name: str) -> None:
        found = self.corrupted(corruption=name)
        assert len(set(found)) == 6
        assert not any(
            shown == image.images[""][0].digest
            for shown, image in zip(found, load_examples(rows()), strict=True)
        )

    def test_rows_may_have_their_own(self) -> None:
        source = [row(image(n), images_corrupted=[image(40)]) for n in range(3)]
        assert len(set(self.corrupted(source=source))) == 1

    def test_clips_may_run_backwards(self) -> None:
        kind = pair(corruption="reverse")[2]
        (example,) = read(kind, [row(*(image(n) for n in range(4)))], "vdpo")
        clip, corrupted = example.cells[0].context, example.views["corrupted"][0].context
        frames = [[*dict.fromkeys((~ids[ids < 0] >> 17).tolist())] for ids in (clip, corrupted)]
        assert frames[0] == frames[1][::-1]
        with pytest.raises(PreferoError, match="frames of a clip"):
            read(kind, rows(1), "vdpo")

    def test_a_prompt_without_images_is_refused(self) -> None:
        prompt = [turn("user", ASKED)]
        with pytest.raises(PreferoError, match="row 1: the method compares with a corrupted image"):
            read(pair()[2], [row(prompt=prompt)], "mdpo")


def test_options_and_processors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PreferoError, match="corruption"):
        pair(corruption="crp")
    with pytest.raises(PreferoError, match=r"no 'corruptoin'.*corruption"):
        pair(corruptoin="crop")
    processor = PROCESSORS["llava"]()
    with pytest.raises(PreferoError, match="needs its processor"):
        kind_of("auto", vision_model("llava", processor), processor.tokenizer)


def test_a_processor_of_another_model_is_refused() -> None:
    processor = PROCESSORS["llava"]()
    processor.patch_size = 16
    kind = kind_of("auto", vision_model("llava", processor), processor)
    with pytest.raises(PreferoError, match="LlavaForConditionalGeneration cannot be scored"):
        kind.adapt(vision_model("llava", processor))


def test_text_alone_is_read_too() -> None:
    model, _, kind = pair()
    data = read(kind, [row(prompt=[turn("user", ASKED)]), row(image(0))])
    kind.adapt(model)
    with torch.no_grad():
        together = kind.score(model, kind.collate(list(data), [0, 0]))[""].logps[0]
        alone = kind.score(model, kind.collate([data[0]], [0]))[""].logps[0]
    assert (together - alone).abs().max() < 1e-6


def test_models_that_read_prompts_both_ways_are_refused_before_data_are_read() -> None:
    processor = PROCESSORS["llava"]()
    model = vision_model("llava", processor)
    model.config.model_type = "paligemma"
    with pytest.raises(PreferoError, match="reads a prompt in both directions"):
        kind_of("auto", model, processor)


def test_worker_processes_prepare_the_same_images(tmp_path: Path) -> None:
    own, worker = (
        losses(trainer(tmp_path / str(n), objective="mdpo", max_steps=2, dataloader_num_workers=n))
        for n in (0, 1)
    )
    assert own == worker
