from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from sklearn.svm import SVC

from prefero.errors import PreferoError
from prefero.models.diffusion.kind import Diffusion
from prefero.models.kind import Reading
from prefero.objectives import dry_run, method
from prefero.training.run import train
from prefero_lab.papers.runner import reproduce
from prefero_lab.worlds import digits
from prefero_lab.worlds.digits import (
    SIZE,
    DigitsRecipe,
    diffusers,
    draw,
    labelled_pairs,
    main,
    measure,
    read,
    scans,
    schedule,
    slant,
    start_model,
)

SMALL = DigitsRecipe(channels=(4, 8), steps=3, batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def small(folder: Path) -> torch.nn.Module:
    return start_model(SMALL, cache=folder)


def stroke(columns) -> torch.Tensor:
    """One pixel of ink a row, from the top."""
    image = -torch.ones(1, 1, SIZE, SIZE)
    for row, column in enumerate(columns):
        image[0, 0, row, column] = 1
    return image


def test_slant_of_lines_worked_out_by_hand() -> None:
    diagonal, upright = stroke(reversed(range(SIZE))), stroke([5] * SIZE)
    half = stroke([12 - row // 2 for row in range(SIZE)])
    assert slant(diagonal).item() == pytest.approx(1)
    assert slant(diagonal.flip(-1)).item() == pytest.approx(-1)
    assert slant(upright).item() == pytest.approx(0, abs=1e-6)
    assert slant(half).item() == pytest.approx(0.5, abs=0.02)
    assert slant(half.roll(2, -1)).item() == pytest.approx(slant(half).item(), abs=1e-5)
    assert slant(-torch.ones(1, 1, SIZE, SIZE)).item() == 0


def test_ink_alone_does_not_lean() -> None:
    assert slant(torch.ones(1, 1, SIZE, SIZE)).item() == pytest.approx(0, abs=1e-5)


def test_scans_are_read_and_lean_both_ways() -> None:
    images, labels = scans()
    assert images.shape == (1797, 1, SIZE, SIZE) and images.min() >= -1 and images.max() <= 1
    assert (read(images) == labels).double().mean() > 0.99
    # scans that the classifier was not fitted to, by other writers
    apart = SVC(C=10).fit(images[:1200].flatten(1).numpy(), labels[:1200].numpy())
    assert apart.score(images[1200:].flatten(1).numpy(), labels[1200:].numpy()) > 0.95
    gold = slant(images)
    assert gold.std() > 0.1 and gold.min() < -0.2 and gold.max() > 0.2


def test_a_start_model_is_trained_once_and_then_read(small: torch.nn.Module, folder: Path) -> None:
    again = start_model(SMALL, cache=folder, report=lambda *_: pytest.fail("trained a second time"))
    for one, other in zip(small.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not again.training


def test_pairs_are_two_images_of_one_digit_that_leans_more_first(small: torch.nn.Module) -> None:
    rows = labelled_pairs(small, 6, torch.Generator().manual_seed(0), steps=2)
    data = Diffusion.of(small, schedule()).read(rows, dry_run(method("diffusion_dpo")), Reading())
    for item, row in zip(data, rows, strict=True):
        chosen, rejected = slant(item.values).tolist()
        assert chosen > rejected
        assert chosen == pytest.approx(row["chosen_score"], abs=0.02)  # eight bits
        assert int(item.conditions[""]["class_labels"]) == row["class"]
    again = labelled_pairs(small, 6, torch.Generator().manual_seed(0), steps=2)
    assert all(one["chosen"] == other["chosen"] for one, other in zip(rows, again, strict=True))


def test_images_depend_on_the_generator_alone(small: torch.nn.Module) -> None:
    labels = torch.tensor([3, 1])
    first, second = (draw(small, labels, torch.Generator().manual_seed(5), steps=2) for _ in range(2))
    assert torch.equal(first, second) and first.abs().max() <= 1


def test_its_folder_is_what_a_recipe_trains_on(
    folder: Path, small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "start_model", lambda: small)
    main([str(tmp_path / "world"), "--pairs", "4", "--held-out", "2"])
    out = train(
        {
            "model": {"name": str(tmp_path / "world" / "model"), "options": {"sample_steps": 2}},
            "data": {
                "train": str(tmp_path / "world" / "train.jsonl"),
                "eval": str(tmp_path / "world" / "held_out.jsonl"),
            },
            "objective": "diffusion_dpo",
            "training": {"examples_per_step": 2, "use_cpu": True, "disable_tqdm": True},
            "output": str(tmp_path / "run"),
        }
    )
    assert json.loads((out / "run.json").read_text())["finished"]
    assert all(
        one["after"]["image"].startswith("data:image/png")
        for one in map(json.loads, (out / "samples.jsonl").read_text().splitlines())
    )


def test_what_is_measured_is_finite_and_the_same_again(small: torch.nn.Module) -> None:
    first, second = (measure(small, count=20, steps=2) for _ in range(2))
    assert first == second and len(first.slant) == 20
    assert set(first.fidelity) <= {0.0, 1.0}


def test_a_missing_extra_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(PreferoError, match=r'needs diffusers: pip install "prefero-lab\[diffusion\]"'):
        diffusers()


@pytest.mark.slow
def test_pairs_by_slant_make_the_model_lean_and_it_still_writes_digits(tmp_path: Path) -> None:
    outcome = reproduce("diffusion_dpo", seeds=3, output=tmp_path)
    assert outcome.verdict == "holds"
