"""World ``digits``: handwritten digits, drawn by a diffusion model that is told which; gold is their slant.

The data are the 1797 scans that scikit-learn brings along (the optical recognition data of the UCI
repository), 8×8 pixels enlarged to 16×16. How far a digit leans to the right is a number with a formula, and
says nothing of which digit it is; a classifier fitted to the scans tells whether it still is the one that was
asked for, so a policy that leans by drawing strokes at random is seen to pay.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.models.diffusion import DiffusionAdapter, Images
from prefero.objectives import Objective, PreferenceBatch, TokenLogps
from prefero.worlds.start import Report, default_folder, one_thread

SIZE, CLASSES = 16, 10

Pixels = Float[Tensor, "image 1 16 16"]
"""From −1, paper, to 1, ink."""

Labels = Int[Tensor, " image"]


def optional(module: str) -> Any:
    """A module of the extra ``diffusion``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PreferoError(
            f"the world digits needs {module.partition('.')[0]}: pip install 'prefero[diffusion]'"
        ) from error


@functools.cache
def scans() -> tuple[Pixels, Labels]:
    """All scans, and which digits they are."""
    data = optional("sklearn.datasets").load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    enlarged = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear")
    return enlarged, torch.tensor(data.target, dtype=torch.int64)


def slant(images: Pixels) -> Float[Tensor, " image"]:
    """How far the ink moves to the right for every pixel upwards: 1 for a line at 45°, 0 for an upright one,
    negative for what leans to the left; 0 without ink.

    The regression of columns on height, weighted by ink.
    """
    ink = ((images[:, 0] + 1) / 2).clamp(0, 1)
    place = torch.arange(SIZE, dtype=ink.dtype)
    total = ink.sum((1, 2)).clamp(min=1e-6)
    column = place - ((ink.sum(1) @ place) / total)[:, None]
    height = ((ink.sum(2) @ place) / total)[:, None] - place
    along = torch.einsum("nyx,ny,nx->n", ink, height, column)
    return along / torch.einsum("nyx,ny->n", ink, height.square()).clamp(min=1e-6)


@functools.cache
def reader() -> Any:
    """A classifier (support vectors) fitted to the scans."""
    images, labels = scans()
    return optional("sklearn.svm").SVC(C=10).fit(images.flatten(1).numpy(), labels.numpy())


def read(images: Pixels) -> Labels:
    """The digits that a classifier fitted to the scans sees."""
    return torch.from_numpy(reader().predict(images.flatten(1).numpy()))


def schedule() -> Any:
    """The noise that start models are trained with: velocities, a linear schedule of 1000 steps."""
    return optional("diffusers").DDPMScheduler(
        beta_schedule="linear", prediction_type="v_prediction", clip_sample=False
    )


@dataclass(frozen=True, slots=True)
class DigitsRecipe:
    """How a start model is made: a U-Net with attention at 8×8, trained with AdamW on a cosine."""

    channels: tuple[int, int] = (16, 32)
    steps: int = 1600
    batch: int = 32
    lr: float = 3e-3
    warmup: int = 50
    clip: float = 1.0


def start_model(
    recipe: DigitsRecipe | None = None,
    *,
    seed: int = 0,
    cache: Path | None = None,
    report: Report | None = None,
) -> nn.Module:
    """The start model: from ``cache`` if it was made before, else trained and put there."""
    chosen = recipe or DigitsRecipe()
    content = json.dumps([asdict(chosen), seed], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    folder = (cache or default_folder()) / f"digits-{key}"
    if not folder.is_dir():
        with one_thread():
            save(trained(chosen, seed, report), folder)
    model: nn.Module = optional("diffusers").UNet2DModel.from_pretrained(folder)
    return model.eval()


def save(model: Any, folder: Path) -> None:
    """The folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(draft)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same model
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def untrained(recipe: DigitsRecipe, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = optional("diffusers").UNet2DModel(
            sample_size=SIZE,
            in_channels=1,
            out_channels=1,
            block_out_channels=recipe.channels,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=8,
            num_class_embeds=CLASSES,
        )
    return model


def trained(recipe: DigitsRecipe, seed: int, report: Report | None = None) -> nn.Module:
    """A model that minimises the denoising error of the scans: minus their score."""
    model = untrained(recipe, seed).train()
    (images, labels), numbers = scans(), torch.Generator().manual_seed(seed)
    adapter = DiffusionAdapter.of(schedule())
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, fused=True)

    def share(step: int) -> float:
        return min((step + 1) / recipe.warmup, 0.5 + 0.5 * math.cos(math.pi * step / recipe.steps))

    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    for step in range(1, recipe.steps + 1):
        rows = torch.randint(len(images), (recipe.batch,), generator=numbers)
        batch = Images(images[rows, None], {"class_labels": labels[rows]})
        loss = -adapter.score(model, adapter.draw(batch, numbers)).logps.mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
        if report:
            report(step, recipe.steps)
    return model.eval()


@torch.no_grad()
def draw(model: nn.Module, labels: Labels, generator: torch.Generator, *, steps: int = 20) -> Pixels:
    """Images of the digits asked for, by DDIM."""
    scheduler = optional("diffusers").DDIMScheduler.from_config(
        schedule().config, timestep_spacing="trailing", clip_sample=True
    )
    scheduler.set_timesteps(steps)
    images = torch.randn(len(labels), 1, SIZE, SIZE, generator=generator)
    for time in scheduler.timesteps:
        said = model(images, timestep=time, class_labels=labels).sample
        images = scheduler.step(said, time, images).prev_sample
    return images.clamp(-1, 1)


def labelled_pairs(model: nn.Module, count: int, generator: torch.Generator, *, steps: int = 20) -> Images:
    """Two images of the same digit by the model, ``count`` times, the one that leans further right first."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    drawn = draw(model, labels.repeat_interleave(2), generator, steps=steps).view(count, 2, 1, SIZE, SIZE)
    gold = slant(drawn.flatten(0, 1)).view(count, 2)
    order = gold.argsort(1, descending=True)
    return Images(drawn[torch.arange(count)[:, None], order], {"class_labels": labels})


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a model is fitted to pairs, by plain AdamW."""

    steps: int = 200
    batch: int = 16
    lr: float = 1e-4
    clip: float = 1.0


def aligned(
    model: nn.Module,
    pairs: Images,
    objective: Objective,
    generator: torch.Generator,
    settings: Alignment | None = None,
) -> nn.Module:
    """A copy of the model, trained on the pairs by an objective with the model itself as reference."""
    chosen = settings or Alignment()
    policy, reference = copy.deepcopy(model), model
    adapter = DiffusionAdapter.of(schedule())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=chosen.lr, fused=True)
    for rows in batches(len(pairs.values), chosen, generator):
        conditions = {name: values[rows] for name, values in pairs.conditions.items()}
        states = adapter.draw(Images(pairs.values[rows], conditions), generator)
        with torch.no_grad():
            start: TokenLogps = adapter.score(reference, states)
        batch = PreferenceBatch({"policy": adapter.score(policy, states), "reference": start})
        objective.loss(batch).backward()
        nn.utils.clip_grad_norm_(policy.parameters(), chosen.clip)
        optimizer.step()
        optimizer.zero_grad()
    return policy.eval()


def batches(count: int, settings: Alignment, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of every step, the pairs reshuffled when they are used up."""
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(settings.steps):
        if len(order) < settings.batch:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[: settings.batch]
        order = order[settings.batch :]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Of fresh images: their mean slant with its standard error, and the share that is read as the digit
    asked for."""

    gold: float
    error: float
    fidelity: float


def measure(model: nn.Module, *, count: int = 250, seed: int = 1_000_000, steps: int = 20) -> Measurement:
    """All digits alike, from the same noise for every model that is measured with the seed."""
    labels = torch.arange(count) % CLASSES
    images = draw(model, labels, torch.Generator().manual_seed(seed), steps=steps)
    gold = slant(images)
    return Measurement(
        gold.mean().item(),
        gold.std().item() / math.sqrt(count),
        (read(images) == labels).double().mean().item(),
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One seed's measurements, on the same noise."""

    seed: int
    before: Measurement
    after: Measurement


def compare(
    model: nn.Module,
    objective: Objective,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    pairs: int = 512,
    settings: Alignment | None = None,
    measured: int = 250,
) -> list[Comparison]:
    """Align the model with pairs of its own images, and measure fresh ones before and after, seed by seed.

    A seed decides on the pairs, the order, the noise in training, and the noise that is measured with.
    """
    found = []
    with one_thread():
        for seed in seeds:
            numbers = torch.Generator().manual_seed(seed)
            own = labelled_pairs(model, pairs, numbers)
            policy = aligned(model, own, objective, numbers, settings)
            before, after = (measure(one, count=measured, seed=1_000_000 + seed) for one in (model, policy))
            found.append(Comparison(seed, before, after))
    return found
