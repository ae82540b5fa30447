"""Spoiled images: what each corruption leaves, and that it is the same whenever the image is opened."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from prefero.data.pictures import DEFAULTS, Corruption, Picture, check, corrupted
from prefero.errors import PreferoError
from tests.vision import image


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.open(), dtype=float)


def spoiled(
    name: str, strength: float | None = None, seed: int = 0, size: tuple[int, int] = (40, 32)
) -> Picture:
    (found,) = corrupted([Picture(image(0, size), "one")], name, strength, (seed, 0))
    return found


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_same_whenever_it_is_opened_and_of_the_same_size(name: str) -> None:
    one = spoiled(name)
    assert one.digest == one.digest == pickle.loads(pickle.dumps(one)).digest
    assert one.open().size == (40, 32)
    assert one.digest != Picture(image(0, (40, 32))).digest


@pytest.mark.parametrize("name", [name for name in DEFAULTS if name not in ("blank", "blur")])
def test_another_seed_draws_anew(name: str) -> None:
    assert spoiled(name, seed=0).digest != spoiled(name, seed=1).digest


def test_a_crop_shows_a_small_part_enlarged() -> None:
    """Positions are told apart by a ramp: what is left of it is at most a fifth of the area."""
    ramp = np.zeros((60, 60, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(60)[:, None] * 4, np.arange(60) * 4
    shares = []
    for seed in range(200):
        (crop,) = corrupted([Picture(Image.fromarray(ramp))], "crop", 0.2, (seed,))
        seen = pixels(crop)[..., :2] / 4
        shares.append(np.prod(np.ptp(seen, (0, 1)) + 1) / 3600)
    assert max(shares) < 0.24 and min(shares) < 0.03
    assert 0.07 < np.mean(shares) < 0.15, "shares are spread over the whole range"


def test_masked_pixels_have_the_mean_colour() -> None:
    whole, found = np.asarray(image(0, (64, 64)), dtype=float), pixels(spoiled("mask", size=(64, 64)))
    changed = (whole != found).any(-1)
    assert 0.25 < changed.mean() < 0.35
    assert (np.abs(found[changed] - whole.mean((0, 1))) <= 0.5).all()


def test_noise_follows_the_diffusion_schedule() -> None:
    grey = Image.new("RGB", (64, 64), (153, 153, 153))
    (found,) = corrupted([Picture(grey)], "noise", 100, (0,))
    kept = np.prod(1 - np.linspace(1e-4, 0.02, 1000)[:100])
    scaled = pixels(found) / 127.5 - 1
    assert scaled.mean() == pytest.approx(kept**0.5 * 0.2, abs=0.01)
    assert scaled.std() == pytest.approx((1 - kept) ** 0.5, abs=0.01)
    (little,) = corrupted([Picture(grey)], "noise", 1, (0,))
    assert np.abs(pixels(little) - 153).max() < 10


def test_patches_change_places() -> None:
    found = pixels(spoiled("shuffle", 4, size=(32, 32)))
    whole = np.asarray(image(0), dtype=float)
    patches = [
        {whole_or[y : y + 8, x : x + 8].tobytes() for y in range(0, 32, 8) for x in range(0, 32, 8)}
        for whole_or in (whole, found)
    ]
    assert patches[0] == patches[1]


def test_blank_is_one_grey() -> None:
    assert (pixels(spoiled("blank", 255)) == 255).all()
    assert (pixels(spoiled("blank")) == 0).all()


def test_one_after_the_other() -> None:
    first = spoiled("mask")
    (second,) = corrupted([first], "blank", None, (0,))
    (back,) = corrupted([second], "noise", 300, (0,))
    assert (pixels(second) == 0).all() and pixels(back).std() > 10


def test_images_of_a_prompt_are_spoiled_differently() -> None:
    one, other = corrupted([Picture(image(0)), Picture(image(0))], "crop", None, (0, 0))
    assert one.digest != other.digest


def test_frames_keep_what_they_are() -> None:
    clip = [Picture(image(n)) for n in range(5)]
    assert corrupted(clip, "reverse", None, (0,)) == tuple(clip[::-1])
    for seed in range(30):
        found = corrupted(clip[:2], "reorder", None, (seed,))
        assert found == tuple(clip[1::-1]), "never the order that it was"
    with pytest.raises(PreferoError, match="one: reverse puts the frames"):
        corrupted([Picture(image(0), "one")], "reverse", None, (0,))


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("crp", None, "no image corruption 'crp'.*crop"),
        ("crop", 0.0, "strength.*'crop' is 0; expected the largest share.*from 0.01 to 1"),
        ("noise", 2000.0, "from 1 to 1000"),
        ("other", 0.5, "has no strength"),
    ],
)
def test_what_cannot_be_is_refused(name: str, strength: float | None, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        check(name, strength)


def test_a_corruption_tells_what_it_is() -> None:
    assert "crop" in Picture(b"", changes=(Corruption("crop", 0.2, (1, 2)),)).identity
