"""The scenes of the world ``shapes``: what is in them, how they are painted, what is asked and answered.

Up to four things of different shapes stand in the quarters of a canvas of 32×32 pixels. Every shape has a
usual colour and a usual place, and a scene has usually three things, so that every question has a usual
answer, whatever the picture shows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prefero.errors import PreferoError

SIZE = 32
RADIUS = 6

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 45, 40),
    "blue": (45, 75, 215),
    "yellow": (230, 205, 45),
    "green": (45, 165, 70),
}
SHAPES = ("circle", "square", "triangle", "cross")
PLACES = ("top left", "top right", "bottom left", "bottom right")
NUMBERS = ("one", "two", "three", "four")
PAPER, NOISE = 16, 10

USUAL_COLOUR = dict(zip(SHAPES, COLOURS, strict=True))
USUAL_PLACE = dict(zip(SHAPES, PLACES, strict=True))
USUAL_NUMBER = "three"


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape; ``shift`` is by how many pixels it is off the middle of its quarter, down and right."""

    shape: str
    colour: str
    place: str
    shift: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Scene:
    """Things of different shapes at different places; ``grain`` seeds the noise of the pixels."""

    things: tuple[Thing, ...]
    grain: int = 0

    def thing(self, shape: str) -> Thing:
        """The one of this shape."""
        return next(thing for thing in self.things if thing.shape == shape)


def draw_scene(rng: random.Random, habit: float) -> Scene:
    """A scene in which each colour, the places, and the number are the usual ones with probability ``habit``
    and else drawn uniformly: with 0 every answer to a question is as probable as the others."""

    def usual() -> bool:
        return rng.random() < habit

    number = USUAL_NUMBER if usual() else rng.choice(NUMBERS)
    shapes = rng.sample(SHAPES, 1 + NUMBERS.index(number))
    places = [USUAL_PLACE[shape] for shape in shapes] if usual() else rng.sample(PLACES, len(shapes))
    things = [
        Thing(
            shape,
            USUAL_COLOUR[shape] if usual() else rng.choice(list(COLOURS)),
            place,
            (rng.randint(-1, 1), rng.randint(-1, 1)),
        )
        for shape, place in zip(shapes, places, strict=True)
    ]
    return Scene(tuple(sorted(things, key=lambda thing: PLACES.index(thing.place))), rng.getrandbits(32))


def paint(scene: Scene) -> Image.Image:
    """The picture of a scene, on noisy black."""
    canvas = np.full((SIZE, SIZE, 3), PAPER, dtype=np.float32)
    for thing in scene.things:
        row, column = divmod(PLACES.index(thing.place), 2)
        middle = (
            SIZE // 4 + row * SIZE // 2 + thing.shift[0],
            SIZE // 4 + column * SIZE // 2 + thing.shift[1],
        )
        canvas[outline(thing.shape, middle)] = COLOURS[thing.colour]
    return grained(canvas, scene.grain)


def grained(canvas: NDArray[np.float32], grain: int) -> Image.Image:
    """A canvas with noise on its pixels."""
    noise = np.random.default_rng(grain).normal(0, NOISE, canvas.shape)
    return Image.fromarray((canvas + noise).clip(0, 255).astype(np.uint8))


def outline(shape: str, middle: tuple[float, float]) -> NDArray[np.bool_]:
    """The pixels that a shape covers."""
    down, right = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.5
    down, right = down - middle[0], right - middle[1]
    far = np.maximum(abs(down), abs(right))
    covered: dict[str, NDArray[np.bool_]] = {
        "circle": down**2 + right**2 <= (RADIUS - 0.5) ** 2,
        "square": far <= RADIUS,
        "triangle": (abs(down) <= RADIUS) & (abs(right) <= (down + RADIUS) / 2),
        "cross": (far <= RADIUS) & (np.minimum(abs(down), abs(right)) <= 1.5),
    }
    return covered[shape]


def quarters(scene: Scene) -> list[tuple[int, int]]:
    """The numbers of the shape and the colour at each place, counted from 1; 0 for an empty one."""
    found = {
        one.place: (1 + SHAPES.index(one.shape), 1 + list(COLOURS).index(one.colour)) for one in scene.things
    }
    return [found.get(place, (0, 0)) for place in PLACES]


def caption(scene: Scene) -> str:
    """All things from the top left to the bottom right."""
    return ", ".join(f"{one.colour} {one.shape} {one.place}" for one in scene.things) + "."


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of question: its words, those of an answer, the four answers, and which is usual."""

    question: str
    answer: str
    candidates: tuple[str, ...]
    usual: Mapping[str, str]


KINDS: Mapping[str, Kind] = {
    "colour": Kind("what colour is the {}?", "the {} is {}.", tuple(COLOURS), USUAL_COLOUR),
    "place": Kind("where is the {}?", "the {} is at the {}.", PLACES, USUAL_PLACE),
    "shape": Kind(
        "what is at the {}?",
        "at the {} is a {}.",
        SHAPES,
        {place: shape for shape, place in USUAL_PLACE.items()},
    ),
    "number": Kind("how many {} are there?", "the number of {} is {}.", NUMBERS, {"things": USUAL_NUMBER}),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a kind ``about`` a shape or a place."""

    kind: str
    about: str

    @property
    def text(self) -> str:
        return KINDS[self.kind].question.format(self.about)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The answers there are."""
        return KINDS[self.kind].candidates

    @property
    def usual(self) -> str:
        """The answer of someone who does not look."""
        return KINDS[self.kind].usual[self.about]

    def truth(self, scene: Scene) -> str:
        """The answer that the picture gives.

        Raises:
            PreferoError: the scene has nothing that the question is about.
        """
        if self.kind == "number":
            return NUMBERS[len(scene.things) - 1]
        for thing in scene.things:
            if self.kind == "shape" and thing.place == self.about:
                return thing.shape
            if thing.shape == self.about:
                return thing.colour if self.kind == "colour" else thing.place
        raise PreferoError(f"{self.text!r} is about nothing in {caption(scene)!r}")

    def sentence(self, answer: str) -> str:
        """An answer as a whole sentence."""
        return KINDS[self.kind].answer.format(self.about, answer)

    def said(self, text: str) -> str | None:
        """The answer that a text gives: the only one of the candidates in it, or None."""
        words = f" {text.replace('.', ' ').replace(',', ' ')} "
        found = [one for one in self.candidates if f" {one} " in words]
        return found[0] if len(found) == 1 else None


def draw_question(rng: random.Random, scene: Scene) -> Question:
    """Any kind of question, about something in the scene."""
    kind, thing = rng.choice(list(KINDS)), rng.choice(scene.things)
    return Question(kind, {"shape": thing.place, "number": "things"}.get(kind, thing.shape))
