"""Images as responses: what real (tiny) diffusers models are scored at, against the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UNet2DModel,
)
from peft import LoraConfig
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.models.diffusion.process import latents, pseudo_huber
from prefero.models.diffusion.scoring import DiffusionAdapter, Images
from prefero.models.loading import adapters_off
from prefero.objectives import PreferenceBatch, TokenLogps, dry_run, from_config, method
from prefero.objectives.signals import NOISE_LEVEL, prediction_distance

PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow")


def scheduler(prediction: str):
    if prediction == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    return DDPMScheduler(beta_schedule="scaled_linear", prediction_type=prediction, clip_sample=False)


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=numbers(seed), dtype=torch.float64)


def unet() -> nn.Module:
    return UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=4,
        num_class_embeds=5,
    )


def text_unet() -> nn.Module:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=2,
        attention_head_dim=2,
        cross_attention_dim=8,
    )


def transformer() -> nn.Module:
    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=2,
        out_channels=4,
        num_layers=1,
        sample_size=8,
        norm_num_groups=2,
        num_embeds_ada_norm=5,
    )


def joint_transformer() -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=2,
        out_channels=2,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        caption_projection_dim=16,
        pooled_projection_dim=6,
        pos_embed_max_size=8,
    )


CLASSES = {"class_labels": torch.tensor([3, 0, 4])}
MODELS = {
    "unet": (unet, CLASSES),
    "text_unet": (text_unet, {"encoder_hidden_states": randn(3, 4, 8)}),
    "transformer": (transformer, CLASSES),
    "joint_transformer": (
        joint_transformer,
        {"encoder_hidden_states": randn(3, 4, 8), "pooled_projections": randn(3, 6)},
    ),
}


def made(name: str, seed: int = 0) -> nn.Module:
    """The model with weights all drawn: some start at zero, where nothing could go wrong."""
    build, _ = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.2)
    return model.double().eval()


def candidates(name: str, responses: int = 2, mask: Tensor | None = None) -> Images:
    return Images(randn(3, responses, 2, 8, 8, seed=1), MODELS[name][1], mask)


def by_hand(model: nn.Module, adapter: DiffusionAdapter, images: Images, states, prediction: str) -> Tensor:
    """Minus the mean squared error, image by image, noised by the scheduler's own methods."""
    own = scheduler(prediction)
    result = torch.zeros(images.values.shape[:2], dtype=torch.float64)
    for example in range(result.shape[0]):
        conditions = {key: value[example : example + 1] for key, value in images.conditions.items()}
        # the one noise of the example, read off its first image
        index = states.index[example, 0, 0]
        for response in range(result.shape[1]):
            data = images.values[example, response][None]
            if prediction == "flow":
                time = own.timesteps[index][None]
                sigma = own.sigmas[index].double()
                noise = (states.states[example, 0, 0] - (1 - sigma) * images.values[example, 0]) / sigma
                state = own.scale_noise(data, time, noise[None])
                target = noise[None] - data
            else:
                time = index[None]
                bar = own.alphas_cumprod[index].double()
                noise = (states.states[example, 0, 0] - bar.sqrt() * images.values[example, 0]) / (
                    1 - bar
                ).sqrt()
                state = own.add_noise(data, noise[None], time)
                target = {
                    "epsilon": noise[None],
                    "sample": data,
                    "v_prediction": own.get_velocity(data, noise[None], time),
                }[prediction]
            said = model(state, timestep=time, **conditions).sample[:, :2]
            result[example, response] = -(said - target).square().mean()
    return result


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_scores_and_gradients_are_those_of_single_images_noised_by_the_scheduler(
    name: str, prediction: str
) -> None:
    model, images = made(name), candidates(name)
    adapter = DiffusionAdapter.of(scheduler(prediction))
    states = adapter.draw(images, numbers())
    scored = adapter.score(model, states)
    expected = by_hand(model, adapter, images, states, prediction)
    torch.testing.assert_close(scored.logps[..., 0], expected, rtol=1e-8, atol=1e-10)
    assert scored.mask.all()
    towards = randn(3, 2, seed=5)
    weights = list(model.parameters())
    found, wanted = (
        torch.autograd.grad((values * towards).sum(), weights, allow_unused=True)
        for values in (scored.logps[..., 0], expected)
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_the_formula_of_the_paper(prediction: str) -> None:
    """−log σ(−(β/2) [(m_w − r_w) − (m_l − r_l)])."""
    policy, reference, images = made("unet"), made("unet", seed=1), candidates("unet")
    adapter = DiffusionAdapter.of(scheduler(prediction))
    states = adapter.draw(images, numbers())
    with torch.no_grad():
        of_reference = adapter.score(reference, states)
    batch = PreferenceBatch({"policy": adapter.score(policy, states), "reference": of_reference})
    loss = method("diffusion_dpo", beta=3.0).loss(batch)
    m, r = (-by_hand(one, adapter, images, states, prediction) for one in (policy, reference))
    change = m - r
    expected = torch.nn.functional.softplus(1.5 * (change[:, 0] - change[:, 1])).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(weight.grad is None for weight in reference.parameters())


def test_the_papers_sum_over_elements_is_dpo_with_its_scale() -> None:
    """T ω(λ) β times the squared norm: 1000 ω and a sum here, β in the method, no half."""
    images, model, reference = candidates("unet"), made("unet"), made("unet", seed=1)
    plain = DiffusionAdapter.of(scheduler("epsilon"))
    paper = DiffusionAdapter.of(
        scheduler("epsilon"), weight=lambda log_snr: log_snr.exp(), scale=1000.0, reduce="sum"
    )
    states = plain.draw(images, numbers())
    level = plain.score(model, states).signals[NOISE_LEVEL]
    snr = (1 - level) / level
    for one in (model, reference):
        torch.testing.assert_close(
            paper.score(one, states).logps, 1000 * snr * 128 * plain.score(one, states).logps
        )


def test_a_policy_equal_to_its_reference_has_no_margin_for_any_draw() -> None:
    model, images = made("unet"), candidates("unet")
    adapter = DiffusionAdapter.of(scheduler("epsilon"))
    states = adapter.draw(images, numbers())
    batch = PreferenceBatch({one: adapter.score(model, states) for one in ("policy", "reference")})
    for key in ("dpo", "diffusion_dpo", "ipo"):
        objective = method(key)
        assert (objective.comparisons(batch).margins == 0).all()
    torch.testing.assert_close(
        method("diffusion_dpo").loss(batch), torch.tensor(math.log(2), dtype=torch.float64)
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_noise_and_time_step_for_all_responses_unless_every_one_has_its_own(prediction: str) -> None:
    adapter = DiffusionAdapter.of(scheduler(prediction))
    same = Images(randn(3, 1, 2, 8, 8).expand(3, 4, 2, 8, 8), CLASSES)
    shared = adapter.draw(same, numbers(), tokens=2)
    assert (shared.states == shared.states[:, :1]).all()
    assert (shared.states[:, :, 0] != shared.states[:, :, 1]).any()
    own = adapter.draw(same, numbers(), tokens=2, noise_per="response")
    assert (own.index == own.index[:, :1]).all()
    assert (own.states[:, 1:] != own.states[:, :1]).any()


def test_targets_of_velocities_are_every_sides_own() -> None:
    """Taking the chosen image's velocity for the rejected one is a silent bug."""
    for prediction in ("flow", "v_prediction", "sample"):
        adapter = DiffusionAdapter.of(scheduler(prediction))
        targets = adapter.draw(candidates("unet"), numbers()).targets
        assert (targets[:, 0] != targets[:, 1]).any()


def test_the_distance_from_another_models_predictions_has_a_gradient_of_the_policy_alone() -> None:
    policy, initial, images = made("unet"), made("unet", seed=2), candidates("unet")
    adapter = DiffusionAdapter.of(scheduler("epsilon"), scale=7.0, error=pseudo_huber)
    states = adapter.draw(images, numbers())
    scored = adapter.score(policy, states, {"initial": initial})
    inputs = (states.states.flatten(0, 2), states.index.flatten())
    classes = CLASSES["class_labels"].repeat_interleave(2)
    one, other = (model(*inputs, class_labels=classes).sample for model in (policy, initial))
    distance = scored.signals[prediction_distance("initial")]
    torch.testing.assert_close(distance.flatten(), (one - other).square().flatten(1).mean(1))
    method("timestep_aware_dpo").loss(PreferenceBatch({"policy": scored, "reference": scored})).backward()
    assert any(weight.grad is not None for weight in policy.parameters())
    assert all(weight.grad is None for weight in initial.parameters())
    same = adapter.score(policy, states, {"initial": policy}).signals[prediction_distance("initial")]
    assert (same == 0).all()


def test_draws_depend_on_the_generator_alone() -> None:
    adapter, images = DiffusionAdapter.of(scheduler("flow")), candidates("unet")
    torch.manual_seed(0)
    first = adapter.draw(images, numbers(3))
    torch.manual_seed(1)
    second = adapter.draw(images, numbers(3))
    assert torch.equal(first.states, second.states)
    assert not torch.equal(first.states, adapter.draw(images, numbers(4)).states)


def test_diffusions_draw_all_time_steps_alike_and_flows_the_middle_more_often() -> None:
    uniform = DiffusionAdapter.of(scheduler("epsilon")).places(20_000, 1, numbers()) / 1000
    middle = DiffusionAdapter.of(scheduler("flow")).places(20_000, 1, numbers()) / 1000
    inside = [((of > 0.25) & (of < 0.75)).double().mean().item() for of in (uniform, middle)]
    assert inside[0] == pytest.approx(0.5, abs=0.02)
    assert inside[1] == pytest.approx(0.73, abs=0.02)
    assert uniform.min() == 0 and uniform.max() < 1


def test_absent_images_are_neither_scored_nor_spread() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    images = candidates("unet", 3, mask)
    images.values[~mask] = torch.nan
    model = made("unet")
    adapter = DiffusionAdapter.of(scheduler("epsilon"))
    scored = adapter.score(model, adapter.draw(images, numbers()))
    assert torch.equal(scored.mask[..., 0], mask)
    assert (scored.logps[~mask] == 0).all()
    assert scored.logps.isfinite().all()
    scored.logps.sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


def test_elements_that_are_padding_are_no_part_of_the_mean() -> None:
    model, images = made("unet"), candidates("unet")
    kept = torch.zeros(3, 2, 2, 8, 8, dtype=torch.bool)
    kept[..., :5] = True
    adapter = DiffusionAdapter.of(scheduler("epsilon"))
    states = adapter.draw(images, numbers())
    partial = adapter.draw(Images(images.values, images.conditions, elements=kept), numbers())
    said = model(
        states.states.flatten(0, 2),
        timestep=states.index.flatten(),
        class_labels=CLASSES["class_labels"].repeat_interleave(2),
    ).sample.view(3, 2, 2, 8, 8)
    wrong = (said - states.targets[:, :, 0]).square()[..., :5].flatten(2)
    torch.testing.assert_close(adapter.score(model, partial).logps[..., 0], -wrong.mean(-1))
    summed = DiffusionAdapter.of(scheduler("epsilon"), reduce="sum")
    torch.testing.assert_close(summed.score(model, partial).logps[..., 0], -wrong.sum(-1))


def test_sampling_with_a_flows_scheduler_does_not_change_what_it_was_trained_with() -> None:
    own = scheduler("flow")
    before = DiffusionAdapter.of(own).process
    own.set_timesteps(5)
    after = DiffusionAdapter.of(own).process
    assert torch.equal(before.noise, after.noise) and torch.equal(before.times, after.times)


def test_clips_and_sounds_are_scored_like_images() -> None:
    class Sound(nn.Module):
        def forward(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor]:
            return (sample / (1 + timestep.view(-1, *[1] * (sample.dim() - 1))),)

    adapter = DiffusionAdapter.of(scheduler("flow"))
    sound = randn(3, 2, 4, 16)
    clip = sound.view(3, 2, 4, 4, 2, 2)
    scored = [adapter.score(Sound(), adapter.draw(Images(of), numbers())) for of in (sound, clip)]
    torch.testing.assert_close(scored[0].logps, scored[1].logps)


def test_conditions_within_conditions_reach_every_image_of_their_example() -> None:
    seen = {}

    def model(given: Tensor, timestep: Tensor, **conditions) -> Tensor:
        seen.update(conditions)
        return given

    sizes = torch.tensor([[1.0], [2.0], [3.0]])
    images = Images(randn(3, 2, 2, 8, 8), {"added_cond_kwargs": {"time_ids": sizes}, "guidance": None})
    adapter = DiffusionAdapter.of(scheduler("epsilon"))
    adapter.score(model, adapter.draw(images, numbers(), tokens=2))
    assert seen["added_cond_kwargs"]["time_ids"].flatten().tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4
    assert seen["guidance"] is None


def test_a_policy_with_its_adapters_off_is_its_reference() -> None:
    policy, images = made("text_unet"), candidates("text_unet")
    adapter = DiffusionAdapter.of(scheduler("epsilon"))
    states = adapter.draw(images, numbers())
    start = adapter.score(policy, states).logps.detach()
    policy.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    policy.double()
    scored = adapter.score(policy, states)
    assert (scored.logps != start).all()
    with torch.no_grad(), adapters_off(policy):
        torch.testing.assert_close(adapter.score(policy, states).logps, start)
    method("diffusion_dpo").loss(
        PreferenceBatch({"policy": scored, "reference": TokenLogps(start, scored.mask)})
    ).backward()
    trained = {name for name, weight in policy.named_parameters() if weight.grad is not None}
    assert trained and all("lora" in name for name in trained)


@pytest.mark.parametrize(
    "config",
    (
        "dpo",
        "ipo",
        {"method": "simpo", "link": "hinge"},
        {"method": "dpo", "plus": {"nll": 0.1}},
        "dpo_plackett_luce",
        "apo_zero",
        "dpo_rw",
    ),
)
def test_objectives_made_for_text_run_on_images_unchanged(config) -> None:
    objective = from_config(config)
    needs = dry_run(objective)
    images = candidates("unet", len(needs.roles) or 3)
    adapter = DiffusionAdapter.of(scheduler("flow"), scale=1000.0)
    states = adapter.draw(images, numbers())
    policy, reference = made("unet"), made("unet", seed=1)
    scored = {"policy": adapter.score(policy, states), "reference": adapter.score(reference, states)}
    count = images.values.shape[1]
    columns = {
        "rank": torch.arange(count).expand(3, count),
        "score": randn(3, count, seed=7),
    }
    loss = objective.double().loss(PreferenceBatch(scored, columns, needs.roles))
    loss.backward()
    assert loss.isfinite() and any(weight.grad.abs().sum() > 0 for weight in policy.parameters())


def test_ranked_lists_of_several_time_steps() -> None:
    images = candidates("transformer", 4)
    adapter = DiffusionAdapter.of(scheduler("epsilon"))
    states = adapter.draw(images, numbers(), tokens=3)
    models = {
        "policy": adapter.score(made("transformer"), states),
        "reference": adapter.score(made("transformer", seed=1), states),
    }
    columns = {"win_rate": torch.tensor([[1.0, 0.6, 0.3, 0.0]]).expand(3, 4)}
    assert method("rankdpo").loss(PreferenceBatch(models, columns, ())).isfinite()


def test_a_pipelines_parts_are_enough() -> None:
    pipeline = DDIMPipeline(unet=unet(), scheduler=DDIMScheduler(prediction_type="v_prediction"))
    adapter = DiffusionAdapter.of(pipeline.scheduler)
    images = Images(randn(2, 2, 2, 8, 8).float(), {"class_labels": torch.tensor([1, 2])})
    scored = adapter.score(pipeline.unet, adapter.draw(images, numbers()))
    assert scored.logps.shape == (2, 2, 1) and (scored.logps < 0).all()


def test_images_become_latents_in_the_units_of_the_denoiser() -> None:
    vae = AutoencoderKL(
        block_out_channels=(4,),
        norm_num_groups=2,
        latent_channels=2,
        scaling_factor=0.5,
        shift_factor=0.1,
    ).eval()
    pixels = randn(2, 3, 3, 8, 8).float()
    found = latents(vae, pixels)
    with torch.no_grad():
        expected = (vae.encode(pixels[1, 2][None]).latent_dist.mode() - 0.1) * 0.5
    torch.testing.assert_close(found[1, 2], expected[0])
    assert not found.requires_grad
    drawn = latents(vae, pixels, numbers())
    assert torch.equal(drawn, latents(vae, pixels, numbers())) and not torch.equal(drawn, found)


def test_a_scheduler_without_a_training_schedule_is_refused() -> None:
    class Other:
        config: dict = {}  # noqa: RUF012

    with pytest.raises(PreferoError, match=r"Other has no `alphas_cumprod`.*DDPMScheduler"):
        DiffusionAdapter.of(Other())
    odd = EulerDiscreteScheduler()
    odd.register_to_config(prediction_type="edm")
    with pytest.raises(PreferoError, match="predicts 'edm'"):
        DiffusionAdapter.of(odd)


def test_a_model_that_gives_another_shape_is_refused() -> None:
    adapter = DiffusionAdapter.of(scheduler("epsilon"))
    states = adapter.draw(candidates("unet"), numbers())
    with pytest.raises(PreferoError, match=r"predicts \(2, 4, 8\) for an image of \(2, 8, 8\)"):
        adapter.score(lambda sample, timestep, class_labels: sample[:, :, :4], states)
