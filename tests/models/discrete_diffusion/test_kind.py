"""Discrete diffusion in the trainer: what is scored, when it is drawn again, what is refused."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
)

from prefero.errors import PreferoError
from prefero.models.discrete_diffusion.kind import DiscreteDiffusion
from prefero.models.discrete_diffusion.scoring import Sequences
from prefero.models.discrete_diffusion.timed import TimedForMaskedLM
from prefero.models.kind import Reading
from prefero.models.loading import ModelSource, kind_of
from prefero.objectives import from_config, method
from prefero.objectives.needs import Needs, dry_run
from prefero.training.batches import Collator, Draw
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import WORDS, pairs

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
SIZE = len(SPECIAL) + len(WORDS) + 1
MASK = SIZE - 1
PAIR = dry_run(from_config("dpo"))


def tokenizer(**left_out: None) -> PreTrainedTokenizerFast:
    """As BERT's: a start token, and one that separates, but none that ends."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS, "[MASK]"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    named = {
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=made, **{**named, **left_out})


def bert(seed: int = 0) -> BertForMaskedLM:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=SIZE,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return BertForMaskedLM(config)


def modern_bert() -> ModernBertForMaskedLM:
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=SIZE,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        global_attn_every_n_layers=1,
    )
    return ModernBertForMaskedLM(config)


def timed() -> TimedForMaskedLM:
    return TimedForMaskedLM.of(bert())


FAMILIES: dict[str, Callable[[], Any]] = {"bert": bert, "modern bert": modern_bert, "timed bert": timed}


def kind(model: Any = None, **options: Any) -> DiscreteDiffusion:
    return DiscreteDiffusion.of(bert() if model is None else model, tokenizer(), options)


def read(of: DiscreteDiffusion, rows: Any = None, needs: Needs = PAIR) -> Any:
    return of.read(pairs(6) if rows is None else rows, needs, Reading())


def trainer(folder: Path, data: Any = None, model: Any = None, **settings: Any) -> PreferenceTrainer:
    options = settings.pop("options", {})
    policy = bert() if model is None else model
    return PreferenceTrainer(
        policy,
        pairs(12) if data is None else data,
        kind=DiscreteDiffusion.of(policy, tokenizer(), options),
        **{
            "output_dir": str(folder),
            "use_cpu": True,
            "disable_tqdm": True,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "learning_rate": 3e-3,
            "max_grad_norm": 0.0,
            "examples_per_step": 4,
            "tokens_per_row": 256,
            "logging_steps": 1,
            "save_strategy": "no",
            **settings,
        },
    )


# What is scored


@pytest.mark.parametrize("noise", ["masking", "uniform"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_single_states_behind_their_prompts(family: str, noise: str) -> None:
    """Every state alone, without padding: factor · Σ over positions that moved, prompts left out."""
    model = FAMILIES[family]().eval()
    of = kind(model, noise=noise, draws=2, schedule="cosine", scale=3.0)
    data = read(of)
    row = of.collate(list(data), range(6))
    of.adapt(model)
    scored = of.score(model, row)[""]
    adapter = of.adapter
    assert row.corrupted.times.shape == (6, 2)
    for e, example in enumerate(data):
        drawn = adapter.draw(
            Sequences(_padded(example)), torch.Generator().manual_seed(e), draws=2, noise_per="response"
        )
        assert torch.equal(drawn.times[0], row.corrupted.times[e])
        for r, cell in enumerate(example.cells):
            start, length = len(cell.context), len(cell.response)
            expected = torch.zeros(length)
            for d, t in enumerate(drawn.times[0]):
                state = drawn.states[0, r, d, :length]
                ids = torch.cat((torch.tensor(cell.context), state))
                assert torch.equal(row.corrupted.states[e, r, d, : start + length], ids)
                told = {"time": t[None]} if family == "timed bert" else {}
                logits = model(input_ids=ids[None], attention_mask=torch.ones(1, len(ids)), **told).logits[0]
                rate = math.pi / 2 * math.sin(t * math.pi / 2) / math.cos(t * math.pi / 2)
                own = torch.tensor(cell.response)
                if noise == "masking":
                    logps = logits[start:].index_fill(-1, torch.tensor(MASK), -math.inf).log_softmax(-1)
                    of_own = logps.gather(-1, own[:, None])[:, 0]
                    gained = torch.where(state == MASK, of_own, 0)
                else:
                    logps = logits[start:].log_softmax(-1)
                    of_own = logps.gather(-1, own[:, None])[:, 0]
                    stays = logps.gather(-1, state[:, None])[:, 0].exp() - 1
                    gained = torch.where(state == own, 0, of_own) + stays
                expected = expected + 3 * rate * gained / 2
            found = scored.logps[e, r][scored.mask[e, r]]
            assert scored.mask[e, r].tolist() == [at < length for at in range(scored.mask.shape[-1])]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _padded(example: Any) -> torch.Tensor:
    responses = [torch.tensor(cell.response) for cell in example.cells]
    return torch.nn.utils.rnn.pad_sequence(responses, batch_first=True)[None]


def test_times_as_tokens_are_the_same_sum() -> None:
    model = bert().eval()
    positions, times = (kind(model, draws=3, tokens=tokens) for tokens in ("position", "time"))
    each, whole = (of.score(model, of.collate(list(read(of)), range(6)))[""] for of in (positions, times))
    assert whole.logps.shape == (6, 2, 3) and read(times)[0].lengths == (3, 3)
    torch.testing.assert_close(each.logps.sum(-1), whole.logps.sum(-1))


@pytest.mark.parametrize("tokens", ["position", "time"])
def test_masks_are_where_scores_are(tokens: str) -> None:
    of = kind(tokens=tokens, draws=2)
    views = {"unprompted": Needs(roles=("rejected",)), "mismatched": Needs(roles=("chosen", "rejected"))}
    row = of.collate(list(read(of, needs=Needs(roles=PAIR.roles, views=views))), range(6))
    scored, masks = of.score(bert().eval(), row), of.masks(row)
    assert scored.keys() == masks.keys() == {"", *views}
    for view, logps in scored.items():
        assert torch.equal(logps.mask, masks[view])
        assert (logps.logps[~logps.mask] == 0).all()


def test_a_response_is_in_the_same_state_under_another_prompt() -> None:
    of = kind(draws=2)
    needs = Needs(roles=PAIR.roles, views={"unprompted": Needs(roles=("rejected",))})
    data = read(of, needs=needs)
    row = of.collate(list(data), range(6))
    place = row.places["unprompted"]
    assert (place.first, place.last) == (2, 3)
    for example, item in enumerate(data):
        states = []
        for cell, at in ((item.cells[1], 1), (item.views["unprompted"][0], 2)):
            start = len(cell.context)
            states.append(row.corrupted.states[example, at, :, start : start + len(cell.response)])
        assert torch.equal(*states)


def test_an_example_is_drawn_the_same_in_any_row() -> None:
    of = kind(draws=2)
    data, model = read(of), bert().eval()
    together = of.score(model, of.collate(list(data), range(6)))[""]
    for number, item in enumerate(data):
        alone = of.score(model, of.collate([item], [number]))[""]
        width = alone.logps.shape[-1]
        torch.testing.assert_close(alone.logps[0], together.logps[number, :, :width])


def test_rows_of_any_length_are_the_same_step(tmp_path: Path) -> None:
    runs = [
        trainer(tmp_path / str(budget), optim="sgd", max_steps=2, tokens_per_row=budget)
        for budget in (64, 4096)
    ]
    for run in runs:
        run.train()
    assert runs[0].plan.micro_batches > runs[1].plan.micro_batches == 1
    for one, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_canvas_is_filled_with_end_tokens_that_are_scored() -> None:
    rows = [{"prompt": "a b", "chosen": "c d e", "rejected": "f"}]
    (item,) = read(kind(canvas=6), rows)
    assert [cell.response[-1] for cell in item.cells] == [2, 2] and item.lengths == (6, 6)
    assert item.cells[1].response.tolist()[1:] == [2] * 5
    (item,) = read(kind(), rows)
    assert item.lengths == (4, 2)
    (item,) = read(kind(ends=False), rows)
    assert item.lengths == (3, 1)
    with pytest.raises(PreferoError, match=r"row 1.*a response has 4 tokens.* canvas .* has 3"):
        read(kind(canvas=3), rows)


def test_models_that_predict_the_next_token_are_read_one_position_earlier() -> None:
    model = bert().eval()
    own, ahead = kind(model), kind(model, predicts="next")
    row = own.collate(list(read(own)), range(6))

    class Ahead(torch.nn.Module):
        """Gives what stands at a position at the one before it."""

        def forward(self, **given: Any) -> Any:
            found = model(**given)
            found.logits = torch.cat((found.logits[:, 1:], found.logits[:, :1]), 1)
            return found

    torch.testing.assert_close(ahead.score(Ahead(), row)[""].logps, own.score(model, row)[""].logps)


# What is drawn, and when


def test_states_are_drawn_anew_in_every_epoch_and_never_by_generators(tmp_path: Path) -> None:
    of = kind()
    data = read(of)
    collate = Collator(of, seed=3)

    def states(epoch: int) -> torch.Tensor:
        return collate([(Draw(i, epoch), data[i]) for i in range(6)]).inputs.corrupted.states

    before = torch.get_rng_state()
    first, second = states(0), states(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, states(0)) and not torch.equal(first, second)


def test_the_reference_sees_the_policys_noise_and_evaluations_are_alike(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", eval_dataset=pairs(6, seed=1), max_steps=3)
    first, again = run.evaluate(), run.evaluate()
    run.train()
    assert run.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["eval_rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert first["eval_logps/chosen"] == again["eval_logps/chosen"]


@pytest.mark.parametrize(("noise", "adapters"), [("masking", False), ("uniform", True)])
def test_resuming_is_exact(noise: str, adapters: bool, tmp_path: Path) -> None:
    def made() -> PreferenceTrainer:
        lora = LoraConfig(r=2, target_modules="all-linear") if adapters else None
        settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2}  # three steps an epoch
        return trainer(tmp_path / "run", peft_config=lora, options={"noise": noise}, **settings)

    whole = made()
    whole.train()
    later = made()
    later.train(tmp_path / "run" / "checkpoint-4")
    for (name, one), other in zip(whole.model.named_parameters(), later.model.parameters(), strict=True):
        assert torch.equal(one, other), name
    other_noise = trainer(tmp_path / "run", options={"noise": noise, "scale": 2.0}, max_steps=6)
    if not adapters:
        with pytest.raises(PreferoError, match="data: "):
            other_noise.train(tmp_path / "run" / "checkpoint-4")


# Methods and models


@pytest.mark.parametrize(
    "objective",
    ["d2_dpo", "ipo", "kto", "simpo", "orpo", "slic", "dpop", "bco", "sppo", "nll"],
)
def test_methods_that_read_log_probabilities_alone_train(objective: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = pairs(8)
    if objective == "sppo":
        rows = [{**row, "chosen_win_rate": 0.8, "rejected_win_rate": 0.2} for row in rows]
    run = trainer(tmp_path / "run", rows, objective=objective, max_steps=2)
    before = [weight.detach().clone() for weight in run.model.parameters()]
    run.train()
    assert all(math.isfinite(line["loss"]) for line in run.state.log_history if "loss" in line)
    assert any(not torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))


@pytest.mark.parametrize("key", ["diffusion_dpo", "flow_dpo", "d3po", "smpo"])
def test_a_method_for_images_is_refused(key: str) -> None:
    """Corrupted tokens are no noisy images, whatever the formula makes of the numbers."""
    with pytest.raises(PreferoError, match=rf"{key} is made for .* scores texts .*\(corrupted tokens\)"):
        kind().check(dry_run(method(key)))
    kind().check(dry_run(method("d2_dpo")))


def test_annotations_of_tokens_are_those_of_positions(tmp_path: Path) -> None:
    trainer(tmp_path / "run", objective="dpo_bmc", max_steps=1, options={"draws": 2, "canvas": 12}).train()
    with pytest.raises(PreferoError, match="'differs' of tokens of text, but tokens are times here"):
        trainer(tmp_path / "no", objective="dpo_bmc", options={"tokens": "time"})


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_is_a_masked_language_model(family: str, tmp_path: Path) -> None:
    noise = {"noise": "uniform"} if family == "timed bert" else {}
    run = trainer(tmp_path / "run", model=FAMILIES[family](), options=noise, max_steps=1)
    run.train()
    run.save_model(str(tmp_path / "model"))
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert type(loaded) is type(run.model)
    for one, other in zip(run.model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)
    again = kind_of("auto", ModelSource(str(tmp_path / "model")))
    assert isinstance(again, DiscreteDiffusion) and again.adapter.timed == (family == "timed bert")


def test_samples_are_filled_in_behind_prompts_up_to_the_end_token() -> None:
    for model, options in ((bert(), {}), (timed(), {"noise": "uniform", "sample_steps": 4})):
        of = kind(model, **options)
        read(of)
        texts = of.sample(model.eval(), ["a b", "c d e f g"], 3, None)
        assert texts == of.sample(model, ["a b", "c d e f g"], 3, None)
        assert texts != of.sample(model, ["a b", "c d e f g"], 4, None)
        assert all("[MASK]" not in text and "[SEP]" not in text for text in texts)
    assert kind().text(torch.tensor([4, 5, 2, 6, 2]).numpy()) == "a b"


OWN_CODE = """
import torch
from types import SimpleNamespace
from transformers import PreTrainedConfig, PreTrainedModel


class OwnConfig(PreTrainedConfig):
    model_type = "own_denoiser"

    def __init__(self, vocab_size=8, mask_token_id=7, **settings):
        self.vocab_size, self.mask_token_id = vocab_size, mask_token_id
        super().__init__(**settings)


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.embedding = torch.nn.Embedding(config.vocab_size, 4)
        self.head = torch.nn.Linear(4, config.vocab_size)
        self.post_init()

    def _init_weights(self, module):
        pass

    def forward(self, input_ids, attention_mask=None):
        hidden = self.embedding(input_ids)
        return SimpleNamespace(logits=self.head(hidden + hidden.mean(1, keepdim=True)))
"""


def test_models_with_their_own_code_and_recipes(tmp_path: Path) -> None:
    """As LLaDA: no AutoModelForMaskedLM, no mask token in the tokenizer."""
    start = tmp_path / "start"
    start.mkdir()
    (start / "own.py").write_text(textwrap.dedent(OWN_CODE))
    config = {
        "model_type": "own_denoiser",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
        "architectures": ["OwnModel"],
        "vocab_size": SIZE,
        "mask_token_id": MASK,
        "max_sequence_length": 40,
    }
    (start / "config.json").write_text(json.dumps(config))
    spaces: dict[str, Any] = {}
    exec(OWN_CODE, spaces)
    torch.manual_seed(0)
    spaces["OwnModel"](spaces["OwnConfig"](**config)).save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "model.safetensors").rename(start / "model.safetensors")
    tokenizer(mask_token=None).save_pretrained(start)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs(12)))
    recipe = {
        "model": {
            "name": str(start),
            "kind": "discrete_diffusion",
            "trust_remote_code": True,
            "options": {"canvas": 11},
        },
        "data": {"train": str(tmp_path / "data.jsonl"), "eval": 0.25},
        "training": {"max_steps": 2, "arguments": {"use_cpu": True}},
        "samples": 2,
        "output": str(tmp_path / "run"),
    }
    folder = train(recipe)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2 and all({"prompt", "before", "after"} <= set(sample) for sample in samples)
    assert "accuracy" in json.loads((folder / "evaluation.json").read_text())["rows"][0]


def test_adapters_are_their_own_reference(tmp_path: Path) -> None:
    run = trainer(
        tmp_path / "run",
        peft_config=LoraConfig(r=2, target_modules=DiscreteDiffusion.lora_targets),
        max_steps=1,
    )
    run.train()
    assert run.state.log_history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert not run.references.cached


# What is refused


def test_a_response_with_the_mask_is_named() -> None:
    rows = [*pairs(3), {"prompt": "a [MASK]", "chosen": "b [MASK]", "rejected": "c"}]
    with pytest.raises(PreferoError, match=r"row 4: a response has the token \d+ \('\[MASK\]'\)"):
        read(kind(), rows)
    rows[3]["chosen"] = "b"  # a prompt is given, whatever it holds
    read(kind(), rows)
    with pytest.raises(PreferoError, match=r"row 1: .* not among the 6 tokens of the noise"):
        read(kind(noise="uniform", vocabulary=6), rows)


def test_a_cache_of_what_is_drawn_again_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match=r"cannot be cached: times and noise .* drawn again in every"):
        trainer(tmp_path / "run", reference="cached")


def test_signals_are_refused_before_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="no signal 'forward_kl'"):
        trainer(tmp_path / "run", data="no-such-file.jsonl", objective="tdpo1")


def test_layouts_of_language_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="layout is trees, but every token"):
        trainer(tmp_path / "run", layout="trees")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nois": "masking"}, "no 'nois'.*did you mean 'noise'"),
        ({"draws": 0}, "model.options.draws"),
        ({"mask": "[MASK]", "noise": "uniform"}, "mask belongs to noise: masking"),
        ({"vocabulary": 4}, "vocabulary belongs to noise: uniform"),
        ({"mask": "<gone>"}, "'<gone>', which is none of the"),
        ({"canvas": 8, "ends": False}, "ends: false there are none"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        kind(**options)


def test_a_model_without_a_mask_token_says_how_to_name_one() -> None:
    with pytest.raises(PreferoError, match=r"name it with model\.options\.mask"):
        DiscreteDiffusion.of(bert(), tokenizer(mask_token=None))
    named = DiscreteDiffusion.of(bert(), tokenizer(mask_token=None), {"mask": "[MASK]"})
    assert named.adapter.noise.mask == MASK
