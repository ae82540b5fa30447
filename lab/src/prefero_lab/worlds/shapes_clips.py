"""Clips of the world ``shapes``: one thing moves over the canvas, and the question is where to.

No single frame tells: the order of the frames is what has to be seen. Every shape has a usual direction, as
it has a usual colour.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from prefero_lab.worlds.shapes_scenes import COLOURS, PAPER, RADIUS, SHAPES, SIZE, grained, outline

DIRECTIONS: Mapping[str, tuple[int, int]] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
USUAL_DIRECTION = dict(zip(SHAPES, DIRECTIONS, strict=True))
FRAMES, TRAVEL = 4, 14


@dataclass(frozen=True, slots=True)
class Clip:
    """A thing that moves in a ``direction``; ``offset`` is by how many pixels its path is off the middle,
    down and right."""

    shape: str
    colour: str
    direction: str
    offset: tuple[int, int] = (0, 0)
    grain: int = 0

    @property
    def question(self) -> str:
        return f"where does the {self.shape} move?"

    @property
    def usual(self) -> str:
        """The answer of someone who does not look."""
        return USUAL_DIRECTION[self.shape]

    def sentence(self, direction: str) -> str:
        """An answer as a whole sentence."""
        return f"the {self.shape} moves {direction}."

    def said(self, text: str) -> str | None:
        """The direction that a text gives: the only one in it, or None."""
        found = [one for one in DIRECTIONS if one in text.replace(".", " ").split()]
        return found[0] if len(found) == 1 else None


def draw_clip(rng: random.Random, habit: float) -> Clip:
    """A clip whose direction is the usual one with probability ``habit`` and else drawn uniformly."""
    shape = rng.choice(SHAPES)
    direction = USUAL_DIRECTION[shape] if rng.random() < habit else rng.choice(list(DIRECTIONS))
    room = (SIZE - TRAVEL) // 2 - RADIUS
    offset = (rng.randint(-room, room), rng.randint(-room, room))
    return Clip(shape, rng.choice(list(COLOURS)), direction, offset, rng.getrandbits(32))


def frames(clip: Clip, count: int = FRAMES) -> list[Image.Image]:
    """The pictures of a clip, in order; played backwards they are those of the opposite direction."""
    down, right = DIRECTIONS[clip.direction]
    pictures = []
    for number in range(count):
        way = TRAVEL * (number / max(1, count - 1) - 0.5)
        canvas = np.full((SIZE, SIZE, 3), PAPER, dtype=np.float32)
        middle = (
            SIZE / 2 + clip.offset[0] + down * way,
            SIZE / 2 + clip.offset[1] + right * way,
        )
        canvas[outline(clip.shape, middle)] = COLOURS[clip.colour]
        pictures.append(grained(canvas, clip.grain + number))
    return pictures
