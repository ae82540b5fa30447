"""Adapters merged into their model: the same model, in a folder that needs neither PEFT nor the base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

import prefero as library
from prefero.errors import PreferoError
from prefero.models.loading import ModelSource
from prefero.training import merging
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

PROMPT = "a b c d e f g"


def adapters_on(base: Path, folder: Path, **options: Any) -> Path:
    """Adapters that change their model, as PEFT saves them: without a tokenizer."""
    torch.manual_seed(5)
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **options}
    model = AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).save_pretrained(
        str(folder)
    )
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(saved_model(tmp_path / "start"))


@pytest.fixture
def adapters(base: Path, tmp_path: Path) -> Path:
    return adapters_on(base, tmp_path / "adapters")


def logps(model: Any, tokenizer: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**tokenizer(PROMPT, return_tensors="pt")).logits.float().log_softmax(-1)


def with_peft(base: Path, adapters: Path, **options: Any) -> Any:
    return peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, **options), adapters)


def test_the_command_writes_a_model_that_is_the_base_with_its_adapters(
    prefero: Callable[..., Any], base: Path, adapters: Path, tmp_path: Path
) -> None:
    generation = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps({**generation, "max_new_tokens": 7}))
    done = prefero("merge", adapters, "-o", "merged", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    merged = tmp_path / "merged"
    assert told["model"] == "merged" and told["base"] == str(base) and told["dtype"] == "float32"
    assert 0 <= told["largest_difference"] < 1e-4
    assert not (merged / "adapter_config.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(merged)
    found = logps(AutoModelForCausalLM.from_pretrained(merged), tokenizer)
    expected = logps(with_peft(base, adapters), tokenizer)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, logps(AutoModelForCausalLM.from_pretrained(base), tokenizer), atol=1e-2)
    assert json.loads((merged / "generation_config.json").read_text())["max_new_tokens"] == 7
    card = ModelCard.load(merged / "README.md")
    assert card.data.base_model == str(base) and "merged into the weights" in card.text
    shown = prefero("merge", adapters, "-o", "again")
    assert "log-probabilities within" in " ".join(shown.stdout.split())


def test_the_stated_difference_is_measured(
    adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that leaves the adapters out is noticed, and nothing is written."""
    monkeypatch.setattr(peft.PeftModel, "merge_and_unload", lambda model: model.unload(), raising=False)
    monkeypatch.setattr(peft.LoraModel, "merge_and_unload", lambda model: model.unload())
    with pytest.raises(PreferoError, match=r"differ by up to \d.* not written"):
        library.merge(adapters, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_data_type_is_the_bases_unless_it_is_given(base: Path, tmp_path: Path, dtype: str) -> None:
    kind = getattr(torch, dtype)
    tiny_model(dtype=kind).save_pretrained(base)
    adapters = adapters_on(base, tmp_path / "adapters")
    told = library.merge(adapters, tmp_path / "merged")
    assert told.dtype == dtype
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").dtype == kind
    assert told.difference < (1e-4 if dtype == "float32" else 0.5)
    assert library.merge(adapters, tmp_path / "wide", dtype="float32").dtype == "float32"


def test_a_base_that_has_moved_is_named(base: Path, adapters: Path, tmp_path: Path) -> None:
    expected = logps(with_peft(base, adapters), tiny_tokenizer())
    shutil.move(base, tmp_path / "moved")
    with pytest.raises(PreferoError, match=r"adapter_config\.json names a model that is not there.* --base"):
        library.merge(adapters, tmp_path / "merged")
    told = library.merge(adapters, tmp_path / "merged", base=str(tmp_path / "moved"))
    assert told.base == str(tmp_path / "moved")
    found = logps(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tiny_tokenizer())
    assert torch.allclose(found, expected, atol=1e-5)


def test_adapters_on_adapters_are_both_merged(base: Path, adapters: Path, tmp_path: Path) -> None:
    first = library.merge(adapters, tmp_path / "first").folder
    second = adapters_on(first, tmp_path / "second", target_modules=["o_proj"])
    expected = logps(with_peft(first, second), tiny_tokenizer())
    config = json.loads((second / "adapter_config.json").read_text())
    (second / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": str(adapters)})
    )
    library.merge(second, tmp_path / "merged")
    found = logps(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tiny_tokenizer())
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_adapters_on_one_of_two_that_share_weights(base: Path, tmp_path: Path, target: str) -> None:
    """The other one stays what it is: the merged model has a head of its own."""
    tiny_model(tied=True).save_pretrained(base)
    adapters = adapters_on(base, tmp_path / "adapters", target_modules=["q_proj", target])
    expected = logps(with_peft(base, adapters), tiny_tokenizer())
    library.merge(adapters, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not merged.config.tie_word_embeddings
    for model in (merged, ModelSource(str(adapters), adapter="merge").load()):
        assert torch.allclose(logps(model, tiny_tokenizer()), expected, atol=1e-4)


def test_rows_of_tokens_that_the_base_has_are_not_new(base: Path, tmp_path: Path) -> None:
    adapters = adapters_on(base, tmp_path / "adapters", trainable_token_indices=[0, 3, 4])
    expected = logps(with_peft(base, adapters), tiny_tokenizer())
    library.merge(adapters, tmp_path / "merged")
    for model in (
        AutoModelForCausalLM.from_pretrained(tmp_path / "merged"),
        ModelSource(str(adapters)).load(),
    ):
        assert torch.allclose(logps(model, tiny_tokenizer()), expected, atol=1e-4)


def test_a_base_is_given_where_the_adapters_name_none(base: Path, adapters: Path, tmp_path: Path) -> None:
    config = json.loads((adapters / "adapter_config.json").read_text())
    (adapters / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(PreferoError, match=r"does not say which model .* --base MODEL"):
        library.merge(adapters, tmp_path / "merged")
    with pytest.raises(
        PreferoError, match=r"^no model can be loaded from .*nowhere': there is no such folder$"
    ):
        library.merge(adapters, tmp_path / "merged", base=str(tmp_path / "nowhere"))
    assert library.merge(adapters, tmp_path / "merged", base=str(base)).base == str(base)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_merge_that_is_interrupted_leaves_nothing(
    adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    if is_there:
        (tmp_path / "merged").mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(merging, "write_text", interrupted)  # of the card, which is last
    with pytest.raises(KeyboardInterrupt):
        library.merge(adapters, tmp_path / "merged")
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.undo()
    library.merge(adapters, tmp_path / "merged")
    assert (tmp_path / "merged" / "config.json").is_file() and (tmp_path / "merged" / "README.md").is_file()


def test_a_checkpoint_has_not_the_results_of_its_run(base: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, {"name": str(base), "lora": {"r": 2}})
    (last,) = run.glob("checkpoint-*")
    library.merge(last, tmp_path / "merged")
    assert "reward accuracy" not in (tmp_path / "merged" / "README.md").read_text()
    assert "reward accuracy" in (run / "model" / "README.md").read_text()


def run_of(tmp_path: Path, model: dict[str, Any], **more: Any) -> Path:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in more.pop("rows", pairs(12))))
    training = {
        "use_cpu": True,
        "max_steps": 2,
        "examples_per_step": 6,
        "learning_rate": 0.05,
        "warmup_steps": 0,
    }
    return library.train({
        "model": model, "data": {"train": str(data), "eval": 0.25, **more.pop("data", {})}, "samples": 0,
        "output": str(tmp_path / "run"), "training": {**training, "disable_tqdm": True}, **more,
    })  # fmt: skip


def test_a_run_is_merged_with_its_tokens_template_and_card(base: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}<turn> {{ m.content }} {% endfor %}"
    (tmp_path / "template.jinja").write_text(template)
    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}],
         "chosen": [{"role": "assistant", "content": row["chosen"]}],
         "rejected": [{"role": "assistant", "content": row["rejected"]}]}
        for row in pairs(12)
    ]  # fmt: skip
    model = {"name": str(base), "lora": {"r": 2}, "add_tokens": ["<turn>"]}
    run = run_of(tmp_path, model, rows=rows, data={"template": str(tmp_path / "template.jinja")})
    trained = ModelSource(str(run / "model")).load().eval()
    for named in (run, run / "model"):
        shutil.rmtree(tmp_path / "merged", ignore_errors=True)
        told = library.merge(named, tmp_path / "merged")
        assert told.base == str(base)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        ids = tokenizer("a <turn> b <turn>", return_tensors="pt")
        assert tokenizer.convert_tokens_to_ids("<turn>") in ids["input_ids"]
        with torch.no_grad():
            assert torch.allclose(merged(**ids).logits, trained(**ids).logits, atol=1e-4)
        assert tokenizer.chat_template == template
        card = ModelCard.load(tmp_path / "merged" / "README.md")
        assert (
            card.data.base_model == str(base) and "prefero" in card.data.tags and "lora" not in card.data.tags
        )
        assert "| reward accuracy |" in card.text and "−log σ" in card.text
        assert f"merged into the weights of `{base}`" in card.text


def test_a_run_from_python_is_merged(base: Path, tmp_path: Path) -> None:
    trainer = library.PreferenceTrainer(
        str(base), pairs(6), peft_config=peft.LoraConfig(r=2, target_modules=["q_proj"]),
        output_dir=str(tmp_path / "run"), use_cpu=True, max_steps=1, examples_per_step=6,
    )  # fmt: skip
    trainer.train()
    with pytest.raises(PreferoError, match=r"save_model\(\) was not called"):
        library.merge(tmp_path / "run", tmp_path / "merged")
    trainer.save_model()
    library.merge(tmp_path / "run", tmp_path / "merged")
    found = logps(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tiny_tokenizer())
    assert torch.allclose(found, logps(trainer.model, tiny_tokenizer()), atol=1e-5)


def test_what_the_objective_learned_comes_along(base: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, {"name": str(base), "lora": {"r": 2}}, objective="dph")
    told = library.merge(run, tmp_path / "merged")
    assert any("objective.safetensors" in note for note in told.notes)
    first, second = (library.load_objective(one) for one in (run / "model", tmp_path / "merged"))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_run_on_quantised_weights_says_what_it_is_merged_into(base: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, {"name": str(base), "lora": {"r": 2}})
    record = json.loads((run / "run.json").read_text())
    record["config"]["model"]["quantization"] = "4bit"
    (run / "run.json").write_text(json.dumps(record))
    told = library.merge(run, tmp_path / "merged")
    assert any(
        "trained on 4bit weights, and are merged into the unquantised ones" in note for note in told.notes
    )


def test_an_encoder_decoder_is_merged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"decoder_start_token_id": 0}
    config = T5Config(
        vocab_size=25, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2,
        pad_token_id=0, eos_token_id=0, **settings,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "start"), tiny_tokenizer().save_pretrained(tmp_path / "start")
    adapter = peft.LoraConfig(r=2, target_modules=["q"], init_lora_weights=False, task_type="SEQ_2_SEQ_LM")
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path / "start")
    peft.get_peft_model(loaded, adapter).save_pretrained(str(tmp_path / "adapters"))
    assert library.merge(tmp_path / "adapters", tmp_path / "merged").difference < 1e-4
    T5ForConditionalGeneration.from_pretrained(tmp_path / "merged")


# What cannot be merged


def test_a_whole_model_has_nothing_to_merge(prefero: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    done = prefero("merge", base, "-o", "merged")
    assert done.returncode == 2 and "there is nothing to merge" in done.stderr
    run = run_of(tmp_path, {"name": str(base)})
    with pytest.raises(PreferoError, match="there is nothing to merge"):
        library.merge(run, tmp_path / "merged")
    with pytest.raises(PreferoError, match="there is no such folder"):
        library.merge(tmp_path / "nowhere", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_files_are_not_written_over(adapters: Path, tmp_path: Path) -> None:
    for taken in (adapters, tmp_path / "start"):
        before = sorted(file.name for file in taken.iterdir())
        with pytest.raises(PreferoError, match="holds files already"):
            library.merge(adapters, taken)
        assert sorted(file.name for file in taken.iterdir()) == before


def test_a_base_that_is_stored_quantised_is_refused(base: Path, adapters: Path, tmp_path: Path) -> None:
    whole = Path(saved_model(tmp_path / "whole"))
    config = json.loads((base / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": quantised}))
    with pytest.raises(PreferoError, match=r"stored quantised \(bitsandbytes\).* --base MODEL"):
        library.merge(adapters, tmp_path / "merged")
    library.merge(adapters, tmp_path / "merged", base=str(whole))


def test_virtual_tokens_cannot_be_merged(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    tuned.save_pretrained(str(tmp_path / "adapters"))
    with pytest.raises(PreferoError, match="PROMPT_TUNING cannot be merged"):
        library.merge(tmp_path / "adapters", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_damaged_adapters_are_named(adapters: Path, tmp_path: Path) -> None:
    (adapters / "adapter_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(PreferoError, match="adapter"):
        library.merge(adapters, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_every_precision_has_its_tolerance() -> None:
    assert merging.TOLERANCES.keys() == {torch.float32, torch.float16, torch.bfloat16}
