from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from sklearn.svm import SVC

from prefero.errors import PreferoError
from prefero.objectives import method
from prefero.worlds.digits import (
    SIZE,
    Alignment,
    DigitsRecipe,
    aligned,
    compare,
    draw,
    labelled_pairs,
    measure,
    optional,
    read,
    scans,
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
    pairs = labelled_pairs(small, 6, torch.Generator().manual_seed(0), steps=2)
    assert pairs.values.shape == (6, 2, 1, SIZE, SIZE)
    assert (slant(pairs.values[:, 0]) >= slant(pairs.values[:, 1])).all()
    assert pairs.conditions["class_labels"].shape == (6,)
    again = labelled_pairs(small, 6, torch.Generator().manual_seed(0), steps=2)
    assert torch.equal(pairs.values, again.values)


def test_images_depend_on_the_generator_alone(small: torch.nn.Module) -> None:
    labels = torch.tensor([3, 1])
    first, second = (draw(small, labels, torch.Generator().manual_seed(5), steps=2) for _ in range(2))
    assert torch.equal(first, second) and first.abs().max() <= 1


def test_alignment_trains_a_copy(small: torch.nn.Module) -> None:
    before = copy.deepcopy(small.state_dict())
    pairs = labelled_pairs(small, 4, torch.Generator().manual_seed(0), steps=2)
    policy = aligned(
        small,
        pairs,
        method("diffusion_dpo"),
        torch.Generator().manual_seed(0),
        Alignment(steps=3, batch=3, lr=1e-3),
    )
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    assert any(not torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert all(weight.grad is None for weight in small.parameters())


def test_what_is_measured_is_finite_and_the_same_again(small: torch.nn.Module) -> None:
    first, second = (measure(small, count=20, steps=2) for _ in range(2))
    assert first == second and first.error > 0 and 0 <= first.fidelity <= 1


def test_a_missing_extra_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(PreferoError, match=r"needs sklearn: pip install 'prefero\[diffusion\]'"):
        optional("sklearn.svm")


@pytest.mark.slow
def test_pairs_by_slant_make_the_model_lean_and_it_still_writes_digits() -> None:
    found = compare(start_model(), method("diffusion_dpo", beta=500.0))
    assert len(found) == 3
    for one in found:
        assert one.before.fidelity > 0.9
        assert one.after.gold - one.before.gold > 4 * (one.after.error + one.before.error)
        assert one.after.fidelity > 0.85
