"""World ``bargaining``: a buyer and a scripted seller talk in turns; only the buyer is trained.

    gruff seller, lamp for 7:   →   greet plainly. seller smiles. praise shade. seller nods. offer 5.
    seller 5. accept 5. seller agrees. talk rain. seller laughs. talk music. seller shrugs. part soon.
    seller waves.

Four turns decide: a greeting that fits the seller's temper, praise of what the thing has, an offer of two
below the price, and to accept a price as low as that and refuse any other. Whoever greets and praises right
is asked two less; an offer too low, or a mood not won, and the price stays up. The turns behind are small
talk and decide nothing. The buyer at the start knows what is right, and says anything a quarter of the time.

A turn of the buyer is two words and a full stop, so that a policy is asked for three tokens a turn.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from prefero.demo.start import StartModel, StartRecipe
from prefero.demo.text import TextWorld, stream
from prefero.generate.sampling import sample

TEMPERS = {"gruff": "plainly", "cheery": "warmly", "formal": "politely", "shy": "gently"}
"""Temper → the greeting that fits it."""
FEATURES = {
    **{"lamp": "shade", "chair": "seat", "violin": "strings", "kettle": "handle"},
    **{"coat": "lining", "clock": "chime", "mirror": "frame", "basket": "weave"},
}
"""Item for sale → the qualities to praise."""
PRICES = tuple(range(3, 10))
BELOW = 2
"""Difference between the price and the fair offer."""
TOPICS = ("rain", "music", "news", "football", "gardens", "cooking")
FAREWELLS = ("soon", "kindly", "briefly", "gladly", "quietly", "slowly")

KINDS = ("greet", "praise", "offer", "answer", "talk", "talk", "part")
"""The buyer's act in each turn; an answer is ``accept`` or ``refuse``."""
DECISIVE = 4
"""Number of turns, from the first, on which the outcome depends."""
SAYS_RIGHT = 0.75
"""Share of decisive turns in which the corpus is right."""

REPLIES = {"good": ("smiles", "nods"), "bad": ("frowns", "grumbles"), "any": ("laughs", "shrugs", "listens")}
NOTHING = "say nothing."
"""The act of a turn outside the grammar."""

Row = dict[str, Any]


def vocabulary() -> tuple[str, ...]:
    """Every word and mark of prompts and sessions, sorted."""
    buyer = (*TEMPERS.values(), *FEATURES.values(), *TOPICS, *FAREWELLS, *NOTHING[:-1].split())
    verbs = ("greet", "praise", "offer", "accept", "refuse", "talk", "part")
    seller = ("seller", *itertools.chain(*REPLIES.values()), "agrees", "leaves", "waves")
    rest = ("for", ",", ":", ".", *map(str, range(1, 10)), *TEMPERS, *FEATURES)
    return tuple(sorted({*buyer, *verbs, *seller, *rest}))


def prompts(*, held_out: bool) -> list[str]:
    """The prompts of one side of the split, in a fixed order (224 in all, a quarter held out)."""
    every = enumerate(itertools.product(TEMPERS, FEATURES, PRICES))
    return [
        f"{temper} seller, {item} for {price}:"
        for i, (temper, item, price) in every
        if (i * 7 % 4 == 0) == held_out
    ]


@dataclass(frozen=True, slots=True)
class Session:
    """A talk as far as it got: what the buyer said in each turn, and what the seller answered."""

    prompt: str
    said: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()

    @classmethod
    def read(cls, prompt: str, text: str) -> Session:
        """Any text, as the session that it begins with."""
        turns = re.findall(r"(\w+ \w+\.) (seller \w+\.)", text)
        return cls(prompt, tuple(said for said, _ in turns), tuple(heard for _, heard in turns))

    @property
    def text(self) -> str:
        return " ".join(itertools.chain(*zip(self.said, self.heard, strict=True)))

    def before(self, turn: int) -> Session:
        """The session as it was before a turn, from 0."""
        return Session(self.prompt, self.said[:turn], self.heard[:turn])

    def after(self, said: str, rng: random.Random) -> Session:
        """One turn further, with the seller's answer."""
        heard = f"seller {self._reply(said, rng)}."
        return Session(self.prompt, (*self.said, said), (*self.heard, heard))

    def spans(self, turns: Iterable[int], name: str) -> list[Row]:
        """The buyer's turns with these numbers from 0, numbered from 1 under ``name``, as a row has them."""
        starts = [0]
        for said, heard in zip(self.said, self.heard, strict=True):
            starts.append(starts[-1] + len(said) + len(heard) + 2)
        return [
            {"start": starts[turn], "end": starts[turn] + len(self.said[turn]), name: number}
            for number, turn in enumerate(turns, 1)
        ]

    @property
    def right(self) -> tuple[bool, ...]:
        """Correctness of each decisive turn, given the turns before it."""
        return tuple(said == self.best(turn) for turn, said in enumerate(self.said[:DECISIVE]))

    @property
    def success(self) -> bool:
        """Whether the thing was bought two below its price."""
        return len(self.right) == DECISIVE and all(self.right)

    @property
    def score(self) -> float:
        """Half for the deal, a quarter for a greeting and for praise that fit, as a judge of talks would."""
        return 0.5 * self.success + 0.25 * sum(self.right[:2])

    def best(self, turn: int) -> str:
        """The right thing to say in a decisive turn."""
        temper, item, price = self._asked
        if turn == 3:
            low = int(self.heard[2].split()[1][:-1]) <= price - BELOW
            return f"{'accept' if low else 'refuse'} {self.heard[2].split()[1]}"
        return (f"greet {TEMPERS[temper]}.", f"praise {FEATURES[item]}.", f"offer {price - BELOW}.")[turn]

    @property
    def _asked(self) -> tuple[str, str, int]:
        words = re.findall(r"\w+", self.prompt)
        return words[0], words[2], int(words[4])

    def _reply(self, said: str, rng: random.Random) -> str:
        turn, price = len(self.said), self._asked[2]
        if turn < 2:
            return rng.choice(REPLIES["good" if said == self.best(turn) else "bad"])
        if turn == 2:
            named = re.fullmatch(r"offer (\d)\.", said)
            offer = int(named[1]) if named else 0
            mood = sum(self.right)
            return str(price if offer < price - BELOW else max(offer, price - mood))
        if turn == 3:
            return "agrees" if said.startswith("accept") else "leaves"
        return "waves" if turn == len(KINDS) - 1 else rng.choice(REPLIES["any"])


def any_turn(turn: int, rng: random.Random) -> str:
    """A turn of its kind, drawn evenly."""
    kind = KINDS[turn]
    if kind == "answer":
        return f"{rng.choice(('accept', 'refuse'))} {rng.randint(1, 9)}."
    said: dict[str, Sequence[object]] = {
        "greet": list(TEMPERS.values()),
        "praise": list(FEATURES.values()),
        "offer": range(1, 10),
        "talk": TOPICS,
        "part": FAREWELLS,
    }
    return f"{kind} {rng.choice(said[kind])}."


def acted(prompt: str, rng: random.Random, right: float) -> Session:
    """A whole session of a buyer who says the right thing in a decisive turn so often."""
    session = Session(prompt)
    for turn in range(len(KINDS)):
        knows = turn < DECISIVE and rng.random() < right
        session = session.after(session.best(turn) if knows else any_turn(turn, rng), rng)
    return session


def play(
    model: nn.Module, tokenizer: Any, begun: Sequence[Session], generator: torch.Generator
) -> list[Session]:
    """The sessions to their end, the model's turns drawn at temperature 1."""
    done = list(begun)
    rngs = [random.Random(int(torch.randint(2**31, (), generator=generator))) for _ in begun]
    for turn in range(len(KINDS)):
        open_ones = [i for i, session in enumerate(done) if len(session.said) == turn]
        if not open_ones:
            continue
        drawn = sample(
            model,
            tokenizer,
            [f"{done[i].prompt} {done[i].text}".rstrip() for i in open_ones],
            max_new_tokens=3,
            generator=generator,
            batch_size=1024,
        )
        for i, one in zip(open_ones, drawn, strict=True):
            said = one.text.strip()
            said = said if re.fullmatch(r"\w+ \w+\.", said) else NOTHING
            done[i] = done[i].after(said, rngs[i])
    return done


def repaired(
    start: StartModel, count: int, seed: int, *, tries: int = 5
) -> list[tuple[Session, Session, int]]:
    """Sessions of the start model that failed, each with a better one and the turn at which it first went
    wrong: the best of ``tries`` continues from before that turn (Kong et al., 2025, arXiv 2501.01821)."""
    generator = stream("bargaining", "sessions", seed)
    asked = random.Random(f"bargaining sessions {seed}").choices(prompts(held_out=False), k=count)
    played = play(start.model, start.tokenizer, [Session(prompt) for prompt in asked], generator)
    failed = [(one, one.right.index(False)) for one in played if not one.success]
    begun = [one.before(turn) for one, turn in failed for _ in range(tries)]
    again = play(start.model, start.tokenizer, begun, generator)
    found = []
    for i, (worse, turn) in enumerate(failed):
        better = max(again[i * tries : (i + 1) * tries], key=lambda one: one.score)
        if better.score > worse.score and better.said[turn] != worse.said[turn]:
            found.append((better, worse, turn))
    return found


def segment_row(better: Session, worse: Session, turns: Sequence[int]) -> Row:
    """A pair whose turns with these numbers are the key segment."""
    return _row(better, worse, turns, "segment")


def step_row(better: Session, worse: Session) -> Row:
    """A pair of trajectories: all turns of the buyer are steps, and segments."""
    row, turns = _row(better, worse, range(len(KINDS)), "step"), range(len(KINDS))
    for side, session in (("chosen", better), ("rejected", worse)):
        row[f"{side}_spans"] += session.spans(turns, "segment")
    return row


def _row(better: Session, worse: Session, turns: Sequence[int], name: str) -> Row:
    sides = (("chosen", better), ("rejected", worse))
    texts = {side: session.text for side, session in sides}
    return {
        "prompt": better.prompt,
        **texts,
        **{f"{side}_spans": session.spans(turns, name) for side, session in sides},
    }


def noisy(session: Session, first: int, rate: float, rng: random.Random) -> Session:
    """The session with turns of the buyer, from ``first`` on, exchanged for any of their kind at this rate;
    the seller's answers stay."""
    said = (
        any_turn(turn, rng) if turn >= first and rng.random() < rate else own
        for turn, own in enumerate(session.said)
    )
    return replace(session, said=tuple(said))


def write(prompt: str, rng: random.Random) -> str:
    """A session of the corpus that the start model learns from."""
    return acted(prompt, rng, SAYS_RIGHT).text


BARGAINING = TextWorld(
    name="bargaining",
    summary="A buyer's turns with a scripted seller; gold is 1 for a thing bought two below its price.",
    words=vocabulary(),
    prompts=prompts,
    write=write,
    gold=lambda prompt, text: float(Session.read(prompt, text).success),
    measures={"score": lambda prompt, text: Session.read(prompt, text).score},
    max_new_tokens=6 * len(KINDS) + 1,
    recipe=StartRecipe(examples=8000, steps=500, lr=5e-3),
)
