"""The folder of adapters that a run leaves is the model of the next run: as if done in PEFT alone."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from prefero.errors import PreferoError
from prefero.models.loading import ModelSource
from prefero.training.identity import of_start
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.training.test_steps import dpo_by_hand, losses
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

Make = Callable[..., PreferenceTrainer]
TARGETS = ["q_proj", "v_proj"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Adapters that change their model, as PEFT saves them: without a tokenizer."""
    saved_model(tmp_path / "start")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
    torch.manual_seed(5)
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type="CAUSAL_LM", r=2, target_modules=TARGETS, lora_dropout=0.1, init_lora_weights=False
        ),
    )
    adapted.save_pretrained(tmp_path / "adapters")
    return tmp_path / "adapters"


def in_peft(folder: Path, **options: Any) -> Any:
    """The model with its adapters, by PEFT alone."""
    config = json.loads((folder / "adapter_config.json").read_text())
    start = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"])
    return peft.PeftModel.from_pretrained(start, folder, **options)


def merged(model: Any) -> dict[str, torch.Tensor]:
    return model.merge_and_unload().state_dict()


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert float((second[name] - value).abs().max()) <= 1e-6, name


def recipe(tmp_path: Path, model: Any, output: str, **more: Any) -> dict[str, Any]:
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, pairs(12))))
    settings: dict[str, Any] = {"use_cpu": True, "max_steps": 2, "examples_per_step": 6}
    settings |= {"learning_rate": 0.05, "warmup_steps": 0}
    run = {"model": model, "data": str(data), "training": settings, "output": str(tmp_path / output)}
    return run | {"samples": 0} | more


def test_going_on_is_what_peft_does(trainer: Make, folder: Path, caplog: Any) -> None:
    run = trainer(str(folder), objective="dpo", max_steps=3)
    assert "the reference is the policy as it starts, with these adapters" in caplog.text
    assert str(folder) in caplog.text and str(folder.parent / "start") in caplog.text
    order = run.plan.steps(0)
    run.train()
    by_hand = in_peft(folder, is_trainable=True).eval()
    expected_losses = dpo_by_hand(0.1, 3, 6, 0.1, order, by_hand)[1]
    assert losses(run)[0] == pytest.approx(0.693147, abs=1e-5)  # the reference is the start
    assert losses(run) == pytest.approx(expected_losses, abs=2e-6)
    run.save_model(str(folder.parent / "second"))
    second = in_peft(folder.parent / "second")
    started = merged(in_peft(folder))
    result = merged(second)
    assert max(float((result[name] - started[name]).abs().max()) for name in result) > 1e-3
    assert_same(merged(by_hand), result)


def test_the_reference_without_the_adapters_is_had_by_name(trainer: Make, folder: Path, caplog: Any) -> None:
    run = trainer(str(folder), objective="dpo", reference="adapters_off", max_steps=1)
    assert "the reference is that model without them" in caplog.text
    run.train()
    assert losses(run)[0] != pytest.approx(0.693147, abs=1e-3)


def test_runs_go_on_from_runs(tmp_path: Path) -> None:
    start = saved_model(tmp_path / "start")
    lora = {"r": 2, "target_modules": TARGETS}
    first = train(recipe(tmp_path, {"name": start, "lora": lora}, "first")) / "model"
    second = train(recipe(tmp_path, str(first), "second")) / "model"
    config = json.loads((second / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == start and config["r"] == 2
    for one in (first, second):
        card = ModelCard.load(one / "README.md")
        assert (card.data.base_model, card.data.library_name) == (start, "peft") and "lora" in card.data.tags
    third = train(recipe(tmp_path, {"name": str(second), "adapter": "merge"}, "third")) / "model"
    assert not (third / "adapter_config.json").exists()
    weights = [merged(in_peft(one)) for one in (first, second)]
    weights.append(AutoModelForCausalLM.from_pretrained(third).state_dict())
    for one, other in itertools.pairwise(weights):
        assert max(float((one[name] - other[name]).abs().max()) for name in one) > 1e-4


def test_the_identity_of_adapters_has_one_order(folder: Path) -> None:
    """PEFT keeps names of modules in sets, whose order is another one in each process."""
    model = in_peft(folder)
    model.peft_config["default"].target_modules = {"up_proj", "v_proj", "q_proj", "down_proj"}
    modules = of_start(model)["adapters"]["default.target_modules"]
    assert modules == ["down_proj", "q_proj", "up_proj", "v_proj"]


def test_merging_is_what_peft_does(folder: Path) -> None:
    model = ModelSource(str(folder), adapter="merge").load()
    assert_same(merged(in_peft(folder)), dict(model.state_dict()))


def test_new_adapters_on_merged_ones_name_a_model_that_is_there(tmp_path: Path, folder: Path) -> None:
    lora = {"r": 2, "target_modules": TARGETS}
    model = {"name": str(folder), "adapter": "merge", "lora": lora}
    output = train(recipe(tmp_path, model, "again"))
    config = json.loads((output / "model" / "adapter_config.json").read_text())
    base = Path(config["base_model_name_or_path"])
    assert base == output / "base"
    assert_same(merged(in_peft(folder)), AutoModelForCausalLM.from_pretrained(base).state_dict())
    again = ModelSource(str(output / "model"))
    assert again.load() is not None and again.processor() is not None


def test_new_adapters_on_merged_ones_load_where_their_run_was_moved(tmp_path: Path, folder: Path) -> None:
    lora = {"r": 2, "target_modules": TARGETS}
    model = {"name": str(folder), "adapter": "merge", "lora": lora}
    output = train(recipe(tmp_path, model, "again"))
    weights = merged(ModelSource(str(output / "model")).load())
    moved = output.rename(tmp_path / "elsewhere")
    saved_model(output / "base", seed=3)  # another run's by now
    for inner in ("model", "checkpoint-2"):
        source = ModelSource(str(moved / inner))
        assert source.base is not None and source.base.name == str(moved / "base")
        assert_same(weights, merged(source.load()))


def test_adapters_are_made_and_loaded_without_warnings(tmp_path: Path) -> None:
    model = {"name": saved_model(tmp_path / "start"), "lora": {"r": 2, "target_modules": TARGETS}}
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        first = train(recipe(tmp_path, model, "first"))
        train(recipe(tmp_path, str(first / "model"), "second"))


def test_two_adapters_on_one_model_are_policy_and_reference(trainer: Make, folder: Path) -> None:
    other = folder.parent / "other"
    reference = in_peft(folder)
    with torch.no_grad():
        for name, weight in reference.named_parameters():
            if "lora_" in name:
                weight.mul_(1.5)
    reference.save_pretrained(other)
    runs = [trainer(str(folder), reference=str(other), max_steps=1)]
    whole = reference.merge_and_unload()
    whole.save_pretrained(folder.parent / "whole")
    tiny_tokenizer().save_pretrained(folder.parent / "whole")
    runs.append(trainer(str(folder), reference=str(folder.parent / "whole"), max_steps=1))
    for run in runs:
        run.train()
    assert losses(runs[0])[0] != pytest.approx(0.693147, abs=1e-3)
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), abs=1e-5)


def test_adapters_to_be_read_only_are_refused_with_the_remedy(trainer: Make, folder: Path) -> None:
    with pytest.raises(PreferoError, match="is_trainable=True"):
        trainer(in_peft(folder))
    assert trainer(in_peft(folder, is_trainable=True)) is not None
    fixed = tiny_model()
    fixed.requires_grad_(False)
    with pytest.raises(PreferoError, match="nothing to train"):
        trainer(fixed)


def test_adapters_on_top_of_adapters_are_refused(trainer: Make, folder: Path) -> None:
    config = peft.LoraConfig(target_modules=TARGETS)
    with pytest.raises(PreferoError, match="has adapters"):
        trainer(in_peft(folder, is_trainable=True), peft_config=config)
    with pytest.raises(PreferoError, match=r"model\.adapter=merge"):
        ModelSource(str(folder), lora=True).load()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
        ({"base_model_name_or_path": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"target_modules": ["no_such_layer"]}, "no_such_layer"),
        ({"target_modules": [*TARGETS, "k_proj"]}, "k_proj"),
        ({"r": 3}, "size mismatch"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(folder: Path, change: dict[str, Any], told: str) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(PreferoError) as caught:
        ModelSource(str(folder)).load()
    assert told in str(caught.value)


def test_adapters_with_numbers_that_are_none_are_refused(folder: Path) -> None:
    model = in_peft(folder)
    with torch.no_grad():
        next(w for n, w in model.named_parameters() if "lora_A" in n)[0, 0] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(PreferoError, match=r"lora_A.*|finite"):
        ModelSource(str(folder)).load()


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_files_of_adapters_that_end_early_or_are_not_there_are_named(folder: Path, name: str) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(PreferoError, match=str(file)):
        ModelSource(str(folder)).load()
    (folder / "adapter_model.safetensors").unlink()
    if "model" in name:
        with pytest.raises(PreferoError, match=r"no adapter_model\.safetensors"):
            ModelSource(str(folder)).load()


def test_adapters_on_adapters_count_both(folder: Path, tmp_path: Path) -> None:
    model = in_peft(folder).merge_and_unload()
    above = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False, task_type="CAUSAL_LM")
    )
    above.peft_config["default"].base_model_name_or_path = str(folder)
    above.save_pretrained(tmp_path / "above")
    loaded = ModelSource(str(tmp_path / "above"), adapter="merge").load()
    assert_same(merged(above), dict(loaded.state_dict()))


def test_a_whole_model_has_no_adapter_to_merge(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match=r"adapter_config\.json"):
        ModelSource(saved_model(tmp_path), adapter="merge").load()


def test_the_base_is_found_beside_adapters_that_were_moved(folder: Path, tmp_path: Path) -> None:
    file = folder / "adapter_config.json"
    named = json.loads(file.read_text()) | {"base_model_name_or_path": "../start"}
    file.write_text(json.dumps(named))
    assert ModelSource(str(folder)).load() is not None
