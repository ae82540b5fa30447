"""Denoisers as a trainer's policies: what they are told, what is drawn, what is saved, and every method."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DModel,
)
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from peft import LoraConfig, PeftModel
from PIL import Image
from torch import Tensor, nn

from prefero.data.schema import OTHER_PROMPTS, SCHEMA
from prefero.errors import PreferoError
from prefero.models.diffusion.kind import Diffusion
from prefero.models.diffusion.scoring import NoisyRow, mapped
from prefero.models.diffusion.source import bare
from prefero.models.kind import Reading
from prefero.models.loading import ModelSource, kind_of
from prefero.objectives import Needs, dry_run, method, methods
from prefero.objectives.needs import model_names, signals_of
from prefero.objectives.signals import DENOISERS
from prefero.reference.providers import ReferenceSpec
from prefero.training.run import train
from prefero.training.study import compare
from prefero.training.trainer import PreferenceTrainer
from prefero_lab.worlds.bandit import Bandit
from tests.models.diffusion.pipelines import PIPELINES, diffusion, pipeline, pixel_unet
from tests.training.tiny import tiny_model, tiny_tokenizer

PAIRS = dry_run(method("diffusion_dpo"))


def painted(number: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Image.Image:
    shape = (*reversed(size), 3) if mode == "RGB" else tuple(reversed(size))
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8))


def pairs(count: int = 8, **options: Any) -> list[dict[str, Any]]:
    return [
        {"class": n % 5, "chosen": painted(2 * n, **options), "rejected": painted(2 * n + 1, **options)}
        for n in range(count)
    ]


def captioned(name: str, count: int = 4) -> list[dict[str, Any]]:
    prompts = ("0", "3") if name == "dit" else ("a red cat", "a blue dog")
    return [
        {**row, "prompt": prompts[n % 2]} for n, row in enumerate(pairs(count, size=(16, 16), mode="RGB"))
    ]


def saved(name: str, folder: Path) -> ModelSource:
    pipeline(name).save_pretrained(folder)
    return ModelSource(str(folder))


def opened(name: str, folder: Path, **options: Any) -> Diffusion:
    return Diffusion.of(saved(name, folder), None, {"resolution": 16, **options})


def trainer(folder: Path, model: Any = None, data: Any = None, **settings: Any) -> PreferenceTrainer:
    if model is None:
        model, settings = pixel_unet(), {"processing_class": diffusion(), **settings}
    defaults: dict[str, Any] = {
        "objective": "diffusion_dpo",
        "output_dir": str(folder),
        "use_cpu": True,
        "learning_rate": 1e-3,
        "examples_per_step": 4,
        "tokens_per_row": 6,
        "max_steps": 3,
        "save_steps": 2,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
    }
    return PreferenceTrainer(model, pairs() if data is None else data, **{**defaults, **settings})


def losses(made: PreferenceTrainer) -> list[float]:
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def states_of(made: PreferenceTrainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


# What a denoiser is told


class Heard(Exception):
    """The denoiser was called, which is all there is to hear."""


def told_by_its_pipeline(made: Any, prompt: str) -> dict[str, Any]:
    """What a pipeline itself calls its denoiser with, without guidance."""
    denoiser = getattr(made, "unet", None) or made.transformer
    heard: dict[str, Any] = {}

    def listen(module: nn.Module, arguments: Any, options: dict[str, Any]) -> None:
        heard.update(options)
        raise Heard

    handle = denoiser.register_forward_pre_hook(listen, with_kwargs=True)
    more = {"use_resolution_binning": False} if type(made).__name__.startswith("PixArt") else {}
    guidance = 3.5 if isinstance(made, FluxPipeline) else 1.0
    with pytest.raises(Heard):
        made(prompt, height=16, width=16, num_inference_steps=2, guidance_scale=guidance, **more)
    handle.remove()
    return heard


def same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        assert {name for name, value in ours.items() if value is not None} <= set(theirs)
        for name, value in ours.items():
            same(value, theirs[name])
    elif isinstance(ours, Tensor):
        torch.testing.assert_close(ours, theirs, check_dtype=False)
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", sorted(set(PIPELINES) - {"dit"}))
def test_a_denoiser_is_told_what_its_own_pipeline_tells_it(name: str, tmp_path: Path) -> None:
    kind = opened(name, tmp_path)
    data = kind.read(captioned(name, 2), PAIRS, Reading())
    row = kind.collate([data[1]], [0])
    model, heard = kind.load(), {}

    def listen(module: nn.Module, arguments: Any, options: dict[str, Any]) -> None:
        heard.update(options)

    model.register_forward_pre_hook(listen, with_kwargs=True)
    kind.score(model, row)
    theirs = told_by_its_pipeline(pipeline(name), "a blue dog")
    times = heard.pop("timestep")
    if name == "flux":  # times from 0 to 1
        assert times.max() <= 1 and theirs["timestep"].max() <= 1
        heard.pop("hidden_states")
    else:
        assert times.max() > 1
    for key, value in heard.items():
        whole = value if key.endswith("_ids") else mapped(value, lambda part: part[:1])
        same(whole, theirs[key])


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_scores_are_errors_on_the_autoencoders_mean(name: str, tmp_path: Path) -> None:
    """Without the scaling factor, or with a latent drawn at random, errors would be others."""
    kind, made = opened(name, tmp_path), pipeline(name)
    data = kind.read(captioned(name), PAIRS, Reading())
    pixels = torch.stack(
        [
            torch.from_numpy(np.array(painted(n, (16, 16), "RGB"), dtype=np.float32)).permute(2, 0, 1)
            for n in (2, 3)
        ]
    )
    with torch.no_grad():
        posterior = made.vae.encode(pixels / 127.5 - 1).latent_dist.mean
        expected = (posterior - (made.vae.config.shift_factor or 0)) * made.vae.config.scaling_factor
    if name == "flux":
        expected = FluxPipeline._pack_latents(expected, 2, 4, 8, 8)
    torch.testing.assert_close(data[1].values, expected, rtol=1e-4, atol=1e-5)
    scored = kind.score(kind.load().eval(), kind.collate([data[1]], [7]))[""]
    assert scored.mask.all() and scored.logps.shape == (1, 2, 1)
    assert (scored.logps < 0).all() and scored.logps.isfinite().all()


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_a_pipeline_trains_from_its_folder_and_draws(name: str, tmp_path: Path) -> None:
    kind = opened(name, tmp_path / "model", sample_steps=2)
    made = trainer(tmp_path / "run", kind.parts.source, captioned(name, 8), kind=kind, max_steps=2)
    made.train()
    assert losses(made)[0] == pytest.approx(math.log(2)) and all(map(math.isfinite, losses(made)))
    first, again = (kind.sample(made.model, [captioned(name)[0]["prompt"]], 3, None) for _ in range(2))
    assert first == again and first[0]["image"].startswith("data:image/png;base64,")
    assert first != kind.sample(made.model, [captioned(name)[0]["prompt"]], 4, None)


def test_latents_may_be_drawn_once_with_the_runs_seed(tmp_path: Path) -> None:
    kind = opened("stable_diffusion", tmp_path, latents="sample")
    rows = captioned("stable_diffusion", 2)
    first, again, other = (kind.read(rows, PAIRS, Reading(seed=seed))[0].values for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_classes_have_names_where_their_pipeline_has(tmp_path: Path) -> None:
    made = pipeline("dit")
    kind = Diffusion.of(made.transformer, made)
    rows = [
        {**row, "prompt": name} for row, name in zip(captioned("dit"), ("house cat", "dog"), strict=False)
    ]
    data = kind.read(rows, PAIRS, Reading())
    assert [int(item.conditions[""]["class_labels"]) for item in data] == [0, 3]


def test_the_middle_of_an_image_is_seen_whole() -> None:
    kind = Diffusion.of(pixel_unet(), diffusion())
    wide = Image.new("L", (24, 8), 0)
    wide.paste(255, (8, 0, 16, 8))
    large = Image.new("L", (64, 64), 128)
    data = kind.read([{"class": 0, "chosen": wide, "rejected": large}], PAIRS, Reading())
    assert (data[0].values[0] == 1).all()
    torch.testing.assert_close(data[0].values[1], torch.full((1, 8, 8), 128 / 127.5 - 1))
    assert "images reduced or cropped to 8 × 8 pixels: 2." in data.summary.notes


# What is drawn


def row_of(kind: Diffusion, rows: list[dict[str, Any]], seeds: list[int], needs: Needs = PAIRS) -> NoisyRow:
    data = kind.read(rows, needs, Reading())
    return kind.collate(list(data), seeds)


@pytest.mark.parametrize("noise_per", ["example", "response"])
def test_an_examples_noise_is_the_same_whichever_row_it_is_in(noise_per: str) -> None:
    """Lists of other lengths beside it, or padding, must not move what is drawn."""
    kind = Diffusion.of(pixel_unet(), diffusion(), {"noise_per": noise_per, "draws": 3})
    needs = dry_run(method("rankdpo"))
    short = {"class": 1, "images": [painted(1), painted(2)], "win_rates": [0.1, 0.9]}
    long = {"class": 2, "images": [painted(n) for n in (3, 4, 5)], "win_rates": [0.1, 0.9, 0.5]}
    alone = row_of(kind, [short], [11], needs).views[""]
    beside = row_of(kind, [long, short], [5, 11], needs).views[""]
    assert torch.equal(alone.states[0], beside.states[1, :2])
    assert torch.equal(alone.index[0], beside.index[1, :2])
    assert beside.images.present.tolist() == [[True] * 3, [True, True, False]]
    assert len(beside.images.conditions["class_labels"]) == 2
    assert (alone.states[0, 0] - alone.states[0, 1]).abs().max() > 0


def test_a_rows_cost_is_what_the_plan_counted() -> None:
    kind = Diffusion.of(pixel_unet(), diffusion(), {"draws": 2})
    data = kind.read(pairs(3), PAIRS, Reading())
    assert kind.batching(data, "images").cost([0, 2]) == 8
    row = kind.collate([data[0], data[2]], [1, 2])
    assert len(row) == 8
    scored = kind.score(pixel_unet(), row)[""]
    assert torch.equal(scored.mask, kind.masks(row)[""]) and scored.logps.shape == (2, 2, 2)


def test_policy_and_reference_see_one_noise_and_every_epoch_has_another(tmp_path: Path) -> None:
    """With noise of its own for the reference the first loss would not be log 2."""
    made = trainer(tmp_path, data=pairs(4), max_steps=2, num_train_epochs=2, learning_rate=1e-12)
    logs: list[float] = []
    made.train()
    for entry in made.state.log_history:
        if "loss" in entry:
            assert entry["loss"] == pytest.approx(math.log(2), abs=1e-4)
            logs.append(entry["logps/chosen"])
    assert logs[0] != pytest.approx(logs[1], abs=1e-3)


def test_held_out_examples_keep_their_noise(tmp_path: Path) -> None:
    made = trainer(tmp_path, eval_dataset=pairs(4), max_steps=1, save_strategy="no")
    assert made.evaluate()["eval_logps/chosen"] == made.evaluate()["eval_logps/chosen"]
    first, second = (made.evaluate_examples() for _ in range(2))
    assert (first.values["logps/chosen"] == second.values["logps/chosen"]).all()


def test_more_draws_are_the_mean_of_single_ones() -> None:
    kind = Diffusion.of(pixel_unet(), diffusion(), {"draws": 4})
    row = row_of(kind, pairs(2), [1, 2])
    scored = kind.score(pixel_unet(), row)[""].logps
    assert scored.shape == (2, 2, 4) and scored.unique().numel() == 16


@pytest.mark.parametrize(
    ("options", "factor"),
    [({"scale": 3.0}, 3.0), ({"reduce": "sum"}, 64.0), ({"reduce": "sum", "scale": 0.5}, 32.0)],
)
def test_the_unit_of_a_log_probability_is_an_option(options: dict[str, Any], factor: float) -> None:
    plain, chosen = (Diffusion.of(pixel_unet(), diffusion(), one) for one in ({}, options))
    model = pixel_unet()
    first, second = (kind.score(model, row_of(kind, pairs(2), [1, 2]))[""].logps for kind in (plain, chosen))
    torch.testing.assert_close(second, factor * first)


def test_weights_of_time_steps() -> None:
    model, plain = pixel_unet(), Diffusion.of(pixel_unet(), diffusion())
    row = row_of(plain, pairs(4), [1, 2, 3, 4])
    base, ratio = plain.score(model, row)[""].logps, plain.adapter.process.log_snr(row.views[""].index).exp()
    for options, expected in (
        ({"weight": "snr"}, ratio),
        ({"weight": "min_snr", "min_snr_gamma": 0.5}, (0.5 / ratio).clamp(max=1)),
    ):
        weighed = Diffusion.of(pixel_unet(), diffusion(), options).score(model, row)[""].logps
        torch.testing.assert_close(weighed, base * expected.to(base), rtol=1e-4, atol=1e-6)


def test_half_precision_weights_are_given_what_they_can_multiply(tmp_path: Path) -> None:
    made = trainer(tmp_path, pixel_unet().bfloat16(), processing_class=diffusion(), learning_rate=1e-2)
    made.train()
    assert all(map(math.isfinite, losses(made)))


@pytest.mark.parametrize("adapters", [False, True])
def test_recomputed_activations_change_nothing(tmp_path: Path, adapters: bool) -> None:
    found = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        config = lora() if adapters else None
        made = trainer(
            tmp_path / str(recomputed), peft_config=config, activation_checkpointing=recomputed, save_steps=9
        )
        made.train()
        assert bare(made.model).is_gradient_checkpointing == recomputed
        found.append((losses(made), states_of(made)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value)


# Every method

COLUMNS = {
    "tie": lambda numbers: bool(numbers.random() < 0.3),
    "preference": lambda numbers: float(numbers.random()),
    "weight": lambda numbers: float(numbers.random()),
    "group": lambda numbers: int(numbers.integers(2)),
    "flip_rate": lambda numbers: float(0.4 * numbers.random()),
    "desirability": lambda numbers: float(numbers.random()),
    "error_step": lambda numbers: 1,
    "prompt_embedding": lambda numbers: numbers.normal(size=3).tolist(),
}


def rows(needs: Needs, count: int = 8) -> list[dict[str, Any]]:
    """Rows of images as a file of this kind of feedback has them."""
    numbers = np.random.default_rng(0)
    return [row(needs, numbers) for _ in range(count)]


def row(needs: Needs, numbers: np.random.Generator) -> dict[str, Any]:
    def image() -> Image.Image:
        return painted(int(numbers.integers(1 << 30)))

    def value(name: str) -> float:
        return int(numbers.integers(2)) if SCHEMA[name].dtype == "int" else float(numbers.random())

    values: dict[str, Any] = {name: make(numbers) for name, make in COLUMNS.items() if name in needs.columns}
    values |= {"prompt": str(numbers.integers(5))}
    values |= {part.field: "4" for view, part in OTHER_PROMPTS.items() if view in needs.views}
    measured = [name for name in needs.columns if SCHEMA[name].axes == "example response"]
    if needs.roles:
        for role in sorted({*needs.roles, "chosen", "rejected"}):
            values[role] = image()
            values |= {f"{role}_{name}": value(name) for name in measured}
    elif "label" in needs.columns:
        values |= {"image": image(), "label": bool(numbers.random() < 0.5)}
    else:
        values |= {"images": [image() for _ in range(3)], "ranks": numbers.permutation(3).tolist()}
        values |= {name: [value(name) for _ in range(3)] for name in measured if name != "rank"}
    return values


MADE_FOR = {key: one.states for key, one in methods().items() if one.states}
OWN = {key for key, states in MADE_FOR.items() if states in ("forward noise", "flow")}
"""The methods that were made for denoisers on drawn noise."""

OTHERS = {"dpo", "ipo", "slic", "simpo", "kto", "dpo_plackett_luce", "orpo", "apo_zero", "nca", "dr_dpo"}
"""Of those made for text, some of every kind of feedback and update rule."""


def scheduler_for(key: str) -> Any:
    return FlowMatchEulerDiscreteScheduler() if MADE_FOR.get(key) == "flow" else diffusion()


def test_every_method_for_denoisers_says_in_which_states_it_scores() -> None:
    signals = {key for key, one in methods().items() if denoisers_signals(dry_run(one.build()))}
    presets = (".denoising", ".images")
    assert set(MADE_FOR) == signals | {
        key for key, one in methods().items() if one.build.__module__.endswith(presets)
    }
    assert MADE_FOR == {
        "diffusion_dpo": "forward noise",
        "diffusion_cpo": "forward noise",
        "rankdpo": "forward noise",
        "timestep_aware_dpo": "forward noise",
        "video_dpo": "forward noise",
        "flow_dpo": "flow",
        "inpo_diffusion": "inversion",
        "smpo": "inversion",
        "d3po": "trajectory",
        "spo_step_aware": "trajectory",
        "tailorpo": "trajectory",
        "consistency_dpo": "consistency",
        "d2_dpo": "corrupted tokens",
    }


def denoisers_signals(needs: Needs) -> set[str]:
    return {signal.name for signal in signals_of(needs)} & set(DENOISERS)


@pytest.mark.parametrize("key", sorted(set(MADE_FOR) - OWN | {"flow_dpo"}))
def test_a_method_for_other_states_is_refused_before_data_are_read(key: str, tmp_path: Path) -> None:
    """On drawn noise it would train another objective under the method's name."""
    kind = Diffusion.of(pixel_unet(), diffusion())
    named = rf"{key} is made for .*\({MADE_FOR[key]}\).* of kind diffusion scores .*\(forward noise\)"
    for objective in (key, {"method": key, "weight": "wpo"}, {"method": "dpo", "plus": {key: 0.5}}):
        with pytest.raises(PreferoError, match=named):
            trainer(tmp_path, pixel_unet(), "no-such-file.jsonl", kind=kind, objective=objective)


@pytest.mark.parametrize("key", sorted(MADE_FOR))
def test_no_text_is_scored_in_states_of_a_denoiser(key: str) -> None:
    """A token of text is no noisy state: there the formula is another method."""
    needs = dry_run(methods()[key].build())
    for kind in (
        kind_of("auto", tiny_model(), tiny_tokenizer()),
        kind_of("auto", Bandit.bradley_terry(3, 4).policy()),
    ):
        with pytest.raises(
            PreferoError, match=f"{key} is made for .* of kind {kind.name} scores responses as"
        ):
            kind.check(needs)


def test_a_flow_has_its_own_states_and_those_of_drawn_noise() -> None:
    kind = Diffusion.of(pixel_unet(), FlowMatchEulerDiscreteScheduler())
    for key in OWN:
        kind.check(dry_run(methods()[key].build()))
    with pytest.raises(PreferoError, match=r"smpo is made for .*\(flow\) or .*\(forward noise\)"):
        kind.check(dry_run(methods()["smpo"].build()))


@pytest.mark.parametrize("key", sorted(OWN | OTHERS))
def test_a_method_trains_and_goes_on_from_its_checkpoint(key: str, tmp_path: Path) -> None:
    objective = methods()[key].build()
    needs = dry_run(objective)
    others = {name: ReferenceSpec("frozen") for name in model_names(needs) - {"reference"}}
    options = {"scale": 1.0 if key in OWN else 1000.0}

    def made() -> PreferenceTrainer:
        kind = Diffusion.of(pixel_unet(), scheduler_for(key), options)
        return trainer(tmp_path / "run", pixel_unet(), rows(needs), kind=kind, objective=key, models=others)

    whole = made()
    before = states_of(whole)
    whole.train()
    assert len(losses(whole)) == 3 and all(map(math.isfinite, losses(whole)))
    after = states_of(whole)
    assert any(not torch.equal(before[name], after[name]) for name in before), "the policy did not move"
    resumed = made()
    resumed.train(str(tmp_path / "run" / "checkpoint-2"))
    for name, value in states_of(resumed).items():
        assert torch.equal(value, after[name]), name


def test_responses_under_another_prompt_have_the_same_noise_and_other_conditions() -> None:
    kind = Diffusion.of(pixel_unet(), diffusion())
    needs = Needs(roles=PAIRS.roles, models=PAIRS.models, views={"corrupted": Needs(roles=("rejected",))})
    states = row_of(kind, [{**row, "prompt_corrupted": "4"} for row in pairs(2)], [1, 2], needs).views
    assert torch.equal(states["corrupted"].states[:, 0], states[""].states[:, 1])
    assert states["corrupted"].images.conditions["class_labels"].tolist() == [4, 4]
    assert states[""].images.conditions["class_labels"].tolist() == [0, 1]


def test_mismatched_images_are_another_examples_with_the_noise_of_their_place() -> None:
    kind = Diffusion.of(pixel_unet(), diffusion())
    needs = Needs(roles=PAIRS.roles, models=PAIRS.models, views={"mismatched": Needs(roles=PAIRS.roles)})
    data = kind.read(pairs(5), needs, Reading(seed=3))
    for place, item in enumerate(data):
        lent, _ = item.views["mismatched"]
        lenders = [at for at, other in enumerate(data) if torch.equal(other.values, lent)]
        assert len(lenders) == 1 and lenders != [place]
        states = kind.collate([item], [place]).views
        assert not torch.equal(states[""].states, states["mismatched"].states)
        assert torch.equal(states[""].index, states["mismatched"].index)
        assert torch.equal(states[""].targets, states["mismatched"].targets)  # the noise
        assert states["mismatched"].images.conditions["class_labels"].tolist() == [place % 5]


def test_views_are_scored_in_one_call_as_each_for_itself() -> None:
    """A wrapped model may be called once only before its gradients are gathered."""
    kind, model, calls = Diffusion.of(pixel_unet(), diffusion(), {"draws": 2}), pixel_unet(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    views = {"corrupted": Needs(roles=("rejected",)), "mismatched": Needs(roles=PAIRS.roles)}
    needs = Needs(roles=PAIRS.roles, models=PAIRS.models, views=views)
    row = row_of(kind, [{**row, "prompt_corrupted": "4"} for row in pairs(3)], [1, 2, 3], needs)
    scored = kind.score(model, row)
    assert len(calls) == 1
    for view, states in row.views.items():
        alone = kind.score(model, NoisyRow({"": states}))[""]
        torch.testing.assert_close(scored[view].logps, alone.logps)
        assert torch.equal(scored[view].mask, alone.mask)
        assert torch.equal(scored[view].mask, kind.masks(row)[view])


# Adapters, and what is saved


def lora() -> LoraConfig:
    return LoraConfig(r=2, lora_alpha=7, target_modules=list(Diffusion.lora_targets))


def test_adapters_train_against_the_model_without_them_and_a_pipeline_loads_them(tmp_path: Path) -> None:
    source = saved("stable_diffusion", tmp_path / "model")
    data = captioned("stable_diffusion", 8)
    made = trainer(tmp_path / "run", source, data, peft_config=lora(), learning_rate=0.1)
    assert type(made.references.providers["reference"]).__name__ == "AdaptersOff"
    made.train()
    assert losses(made)[0] == pytest.approx(math.log(2)) and losses(made)[-1] != losses(made)[0]
    made.save_model(str(tmp_path / "adapters"))

    state, times = torch.randn(2, 4, 8, 8), torch.tensor([5, 900])
    inputs = {"timestep": times, "encoder_hidden_states": torch.randn(2, 5, 8)}
    with torch.no_grad():
        expected = made.model.eval()(state, **inputs).sample
        plain = pipeline("stable_diffusion").unet(state, **inputs).sample
        by_diffusers = pipeline("stable_diffusion")
        by_diffusers.load_lora_weights(tmp_path / "adapters")
        torch.testing.assert_close(by_diffusers.unet(state, **inputs).sample, expected)
        by_peft = PeftModel.from_pretrained(pipeline("stable_diffusion").unet, tmp_path / "adapters")
        torch.testing.assert_close(by_peft(state, **inputs).sample, expected)
    assert (expected - plain).abs().max() > 1e-3


def test_adapters_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    def made() -> PreferenceTrainer:
        torch.manual_seed(0)
        return trainer(
            tmp_path / "run",
            pixel_unet(),
            processing_class=diffusion(),
            peft_config=lora(),
            learning_rate=0.1,
        )

    whole = made()
    whole.train()
    resumed = made()
    resumed.train(str(tmp_path / "run" / "checkpoint-2"))
    for name, value in states_of(resumed).items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


def test_what_was_trained_is_a_diffusers_model_that_a_pipeline_takes(tmp_path: Path) -> None:
    source = saved("stable_diffusion", tmp_path / "model")
    made = trainer(tmp_path / "run", source, captioned("stable_diffusion", 8))
    made.train()
    made.save_model(str(tmp_path / "trained"))
    whole = StableDiffusionPipeline.from_pretrained(
        tmp_path / "model",
        unet=pipeline("stable_diffusion").unet.from_pretrained(tmp_path / "trained"),
    )
    for name, value in whole.unet.state_dict().items():
        assert torch.equal(value, made.model.state_dict()[name])
    # and it goes on from there
    kind = Diffusion.of(
        ModelSource(str(tmp_path / "trained")), None, {"pipeline": str(tmp_path / "model"), "resolution": 16}
    )
    again = trainer(
        tmp_path / "again", kind.parts.source, captioned("stable_diffusion", 8), kind=kind, max_steps=1
    )
    again.train()
    assert losses(again)[0] == pytest.approx(math.log(2))


def test_another_checkpoint_may_be_the_reference(tmp_path: Path) -> None:
    pixel_unet(seed=1).save_pretrained(tmp_path / "other")
    made = trainer(tmp_path / "run", reference=str(tmp_path / "other"), max_steps=1)
    made.train()
    assert losses(made)[0] != pytest.approx(math.log(2), abs=1e-3)


# From folders, and whole runs


def test_a_denoiser_alone_has_its_scheduler_beside_it_or_named(tmp_path: Path) -> None:
    pixel_unet().save_pretrained(tmp_path / "bare")
    with pytest.raises(PreferoError, match=r"has no scheduler.*model\.options\.scheduler"):
        Diffusion.of(ModelSource(str(tmp_path / "bare")))
    named = Diffusion.of(
        ModelSource(str(tmp_path / "bare")),
        None,
        {"scheduler": {"name": "DDPMScheduler", "prediction_type": "v_prediction"}},
    )
    assert named.adapter.process.prediction == "v_prediction"
    for place in ("beside", "beside/scheduler"):
        pixel_unet().save_pretrained(tmp_path / "beside")
        DDPMScheduler(prediction_type="sample").save_pretrained(tmp_path / place)
        found = kind_of("auto", ModelSource(str(tmp_path / "beside")))
        assert isinstance(found, Diffusion) and found.adapter.process.prediction == "sample"


def recipe(tmp_path: Path, **more: Any) -> dict[str, Any]:
    (tmp_path / "images").mkdir()
    lines = []
    for n, one in enumerate(captioned("stable_diffusion", 8)):
        for role in ("chosen", "rejected"):
            one[role].save(tmp_path / "images" / f"{n}-{role}.png")
            one[role] = f"images/{n}-{role}.png"
        lines.append(json.dumps({name: one[name] for name in ("prompt", "chosen", "rejected")}) + "\n")
    (tmp_path / "train.jsonl").write_text("".join(lines))
    pipeline("stable_diffusion").save_pretrained(tmp_path / "model")
    return {
        "model": {"name": str(tmp_path / "model"), "options": {"sample_steps": 2}, **more},
        "data": {"train": str(tmp_path / "train.jsonl"), "eval": 0.25},
        "objective": {"method": "diffusion_dpo", "beta": 500.0},
        "training": {
            "examples_per_step": 3,
            "learning_rate": 1e-3,
            "save_steps": None,
            "arguments": {"use_cpu": True, "disable_tqdm": True, "report_to": "none"},
        },
        "samples": 2,
        "output": str(tmp_path / "run"),
    }


@pytest.mark.parametrize("adapters", [False, True])
def test_a_recipe_trains_a_pipeline_and_shows_what_it_draws(tmp_path: Path, adapters: bool) -> None:
    out = train(recipe(tmp_path, **({"lora": {"r": 2}} if adapters else {})))
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert samples
    for sample in samples:
        assert all(sample[when]["image"].startswith("data:image/png") for when in ("before", "after"))
    record = json.loads((out / "run.json").read_text())
    assert record["model"]["kind"] == "diffusion" and record["finished"]
    assert record["data"]["train"]["images"] == "16 × 16 pixels, as latents of 4 × 8 × 8"
    assert "accuracy" in json.loads((out / "evaluation.json").read_text())["rows"][0]
    if adapters:
        DiffusionPipeline.from_pretrained(tmp_path / "model").load_lora_weights(out / "model")
    else:
        type(pipeline("stable_diffusion").unet).from_pretrained(out / "model")


# Errors


def test_a_cache_on_disk_is_refused_for_what_is_drawn_anew(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match=r"cannot be cached: noise and time steps .* drawn again"):
        trainer(tmp_path, reference="cached")


def test_what_images_do_not_have_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="a diffusion model has no signal"):
        trainer(tmp_path, objective="tdpo1")
    with pytest.raises(PreferoError, match="'step' of tokens of text, which images do not have"):
        Diffusion.of(pixel_unet(), diffusion()).check(Needs(columns=frozenset({"step"})))
    with pytest.raises(PreferoError, match=r"row 1: the chosen is text, and a diffusion model draws"):
        trainer(tmp_path, data=[{"prompt": "1", "chosen": "a", "rejected": "b"}])
    with pytest.raises(PreferoError, match="the prompt '7' is none: expected a number from 0 to 4"):
        trainer(tmp_path, data=[{**row, "class": 7} for row in pairs(2)])


def test_what_a_model_lacks_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    made = pipeline("stable_diffusion")
    with pytest.raises(PreferoError, match=r"says nothing of the noise .* processing_class"):
        Diffusion.of(made.unet)
    with pytest.raises(PreferoError, match=r"reads captions.*model\.options\.pipeline"):
        kind = Diffusion.of(made.unet, made.scheduler)
        kind.read(captioned("stable_diffusion"), PAIRS, Reading())
    with pytest.raises(PreferoError, match="says not how large images are"):
        Diffusion.of(UNet2DModel(sample_size=None), diffusion()).read(pairs(), PAIRS, Reading())
    with pytest.raises(PreferoError, match=r"no denoiser can be loaded from '.*nowhere'"):
        Diffusion.of(ModelSource(str(tmp_path / "nowhere")))
    with pytest.raises(PreferoError, match="how a ControlNetModel is told what to draw is not known"):
        (tmp_path / "odd").mkdir()
        (tmp_path / "odd" / "config.json").write_text('{"_class_name": "ControlNetModel"}')
        Diffusion.of(ModelSource(str(tmp_path / "odd")), None, {"scheduler": "DDPMScheduler"})
    with pytest.raises(PreferoError, match=r"neither a scheduler of diffusers.*DDPMScheduler"):
        Diffusion.of(pixel_unet(), None, {"scheduler": "DDPMSheduler"})
    with pytest.raises(PreferoError, match=r"model\.options has no 'draw'.*draws"):
        Diffusion.of(pixel_unet(), diffusion(), {"draw": 2})


def test_a_recipe_with_a_method_for_other_states_is_refused_before_its_data_are_read(tmp_path: Path) -> None:
    pixel_unet().save_pretrained(tmp_path / "model")
    diffusion().save_pretrained(tmp_path / "model")
    config = {
        "model": {"name": str(tmp_path / "model"), "kind": "diffusion"},
        "data": str(tmp_path / "no-such-file.jsonl"),
        "objective": "inpo_diffusion",
        "output": str(tmp_path / "run"),
    }
    with pytest.raises(PreferoError, match=r"inpo_diffusion is made for .*kind diffusion"):
        train(config)
    with pytest.raises(PreferoError, match=r"smpo is made for .*kind diffusion"):
        compare({**config, "objective": "diffusion_dpo"}, ["diffusion_dpo", "smpo"])
    assert not (tmp_path / "run").exists()
