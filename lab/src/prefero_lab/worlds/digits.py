"""World ``digits``: handwritten digits, drawn by a diffusion model that is told which; gold is their slant.

The data are the 1797 scans that scikit-learn brings along (the optical recognition data of the UCI
repository), 8×8 pixels enlarged to 16×16. How far a digit leans to the right is a number with a formula, and
says nothing of which digit it is; a classifier fitted to the scans tells whether it still is the one that was
asked for, so a policy that leans by drawing strokes at random is seen to pay.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor, nn

from prefero.demo.start import Report, one_thread
from prefero.errors import PreferoError
from prefero.models.diffusion.drawing import as_image, drawn
from prefero.models.diffusion.scoring import DiffusionAdapter, Images
from prefero.storage import cache_folder
from prefero_lab.worlds import WorldParser

SIZE, CLASSES = 16, 10

Pixels = Float[Tensor, "image 1 16 16"]
"""From −1, paper, to 1, ink."""

Labels = Int[Tensor, " image"]


def diffusers() -> Any:
    """The library of diffusion models, which only this world needs."""
    try:
        import diffusers
    except ImportError as error:
        raise PreferoError(
            'the world digits needs diffusers: pip install "prefero-lab[diffusion]"'
        ) from error
    return diffusers


@functools.cache
def scans() -> tuple[Pixels, Labels]:
    """All scans, and which digits they are."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    enlarged = F.interpolate(images, size=(SIZE, SIZE), mode="bilinear")
    return enlarged, torch.tensor(data.target, dtype=torch.int64)


def slant(images: Pixels) -> Float[Tensor, " image"]:
    """Slant of each image, the movement of the ink to the right per pixel upwards: 1 for a line at 45°, 0 for
    an upright one, negative for what leans to the left; 0 without ink.

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
    return SVC(C=10).fit(images.flatten(1).numpy(), labels.numpy())


def read(images: Pixels) -> Labels:
    """The digits that a classifier fitted to the scans sees."""
    return torch.from_numpy(reader().predict(images.flatten(1).numpy()))


def schedule() -> Any:
    """The noise that start models are trained with: velocities, a linear schedule of 1000 steps."""
    return diffusers().DDPMScheduler(
        beta_schedule="linear", prediction_type="v_prediction", clip_sample=False
    )


@dataclass(frozen=True, slots=True)
class DigitsRecipe:
    """Settings of a start model: a U-Net with attention at 8×8, trained with AdamW on a cosine."""

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
    model: nn.Module = diffusers().UNet2DModel.from_pretrained(
        start_folder(recipe, seed=seed, cache=cache, report=report)
    )
    return model.eval()


def start_folder(
    recipe: DigitsRecipe | None = None,
    *,
    seed: int = 0,
    cache: Path | None = None,
    report: Report | None = None,
) -> Path:
    """Folder of the start model and its scheduler, trained if it is not there."""
    chosen = recipe or DigitsRecipe()
    noise = {name: value for name, value in schedule().config.items() if not name.startswith("_")}
    content = json.dumps([asdict(chosen), noise, seed], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    folder = (cache or cache_folder("worlds")) / f"digits-{key}"
    if not folder.is_dir():
        with one_thread():
            save(trained(chosen, seed, report), folder)
    return folder


def save(model: Any, folder: Path) -> None:
    """The model with its scheduler; the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model.save_pretrained(draft)
        schedule().save_pretrained(draft)
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
        model: nn.Module = diffusers().UNet2DModel(
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
    noise = torch.randn(len(labels), 1, SIZE, SIZE, generator=generator)
    return drawn(model, schedule(), noise, {"class_labels": labels}, steps=steps, clip=True)


def labelled_pairs(
    model: nn.Module, count: int, generator: torch.Generator, *, steps: int = 20
) -> list[dict[str, Any]]:
    """Rows of two images of one digit by the model, the one that leans further right as the chosen one, with
    their slants as scores."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = draw(model, labels.repeat_interleave(2), generator, steps=steps)
    gold = slant(images).view(count, 2)
    rows = []
    for label, pair, slants in zip(labels.tolist(), images.split(2), gold.tolist(), strict=True):
        better, worse = (0, 1) if slants[0] >= slants[1] else (1, 0)
        sides = {"chosen": as_image(pair[better]), "rejected": as_image(pair[worse])}
        scores = {"chosen_score": slants[better], "rejected_score": slants[worse]}
        rows.append({"class": label, **sides, **scores})
    return rows


@dataclass(frozen=True, slots=True)
class Measurement:
    """Per fresh image: its slant, and 1 if the classifier reads the digit that was asked for."""

    slant: Sequence[float]
    fidelity: Sequence[float]


def measure(model: nn.Module, *, count: int = 250, seed: int = 1_000_000, steps: int = 20) -> Measurement:
    """All digits alike, from the same noise for every model that is measured with the seed."""
    labels = torch.arange(count) % CLASSES
    images = draw(model, labels, torch.Generator().manual_seed(seed), steps=steps)
    return Measurement(slant(images).tolist(), (read(images) == labels).double().tolist())


def write(folder: Path, *, pairs: int, held_out: int, seed: int) -> None:
    """The start model in ``model/``, its pairs in ``train.jsonl`` and ``held_out.jsonl``, their images beside
    them."""
    save(start_model(), folder / "model")
    for name, count, own in (("train", pairs, seed), ("held_out", held_out, seed + 1_000_000)):
        lines = []
        (folder / name).mkdir(parents=True, exist_ok=True)
        with one_thread():
            rows = labelled_pairs(start_model(), count, torch.Generator().manual_seed(own))
        for number, row in enumerate(rows):
            for side in ("chosen", "rejected"):
                place = f"{name}/{number}-{side}.png"
                row[side].save(folder / place)
                row[side] = place
            lines.append(json.dumps(row) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str]) -> Path:
    """Handwritten digits, drawn by a small diffusion model: those that lean to the right are chosen."""
    parser = WorldParser("digits", main.__doc__)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--held-out", type=int, default=128)
    given = parser.parse_args(arguments)
    write(given.folder, pairs=given.pairs, held_out=given.held_out, seed=given.seed)
    return given.folder
