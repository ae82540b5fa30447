"""World ``arithmetic``: short calculations modulo 7 step by step, of which every step can be checked.

    4 1: +3 2: *5 3: -6 =   →   1: 4 +3 = 0 2: 0 *5 = 0 3: 0 -6 = 1 # 1

One token a number, a step's number, or an operation with its operand. The start model learnt it all right,
and then the habits of a bad teacher: a fifth of the facts has one wrong result that it mostly gives. So it
knows the right answer, and half of the time does not say it, as a pretrained model does. 7 is prime and no
operand is 0, so an error survives to the end: right answers with a wrong step (``lucky``) are few.

The verifier (:func:`check`) names the first wrong step; the answer behind ``#`` is the step after the last.
The answer to a problem can be written in one way only. In ``ARITHMETIC_WORDED`` every step begins with a word
that says nothing (``so 1: 4 +3 = 0 then 2: …``), so that answers differ in more than what matters.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from prefero.demo.start import Pair, Report, StartModel, StartRecipe, start_model, word_tokenizer
from prefero.demo.text import TextWorld, stream
from prefero.generate.sampling import Sample, sample

MODULUS = 7
OPERATIONS = tuple(f"{sign}{operand}" for sign in "+-*" for operand in range(1, MODULUS))
LENGTHS = (3, 4)
"""Number of operations of a problem."""
TRAINING, HELD_OUT = 12_000, 3_000
"""Number of problems on either side of the split."""
CONNECTIVES = ("so", "then", "now", "next", "thus", "hence")

HABITS, HABIT, SLIP = 0.2, 0.65, 0.03
"""The bad teacher: the share of the facts with a habit, how often it shows, and how often any step slips."""

Fact = tuple[str, int]
"""An operation, and the value that it is applied to."""

Row = dict[str, Any]


def applied(operation: str, value: int) -> int:
    operand = int(operation[1:])
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operation[0]] % MODULUS


@dataclass(frozen=True, slots=True)
class Problem:
    """A value from 0 to 6, and what is done to it."""

    value: int
    operations: tuple[str, ...]

    @classmethod
    def read(cls, prompt: str) -> Problem:
        words = prompt.split()
        return cls(int(words[0]), tuple(words[2:-1:2]))

    def __str__(self) -> str:
        asked = " ".join(f"{number}: {operation}" for number, operation in enumerate(self.operations, 1))
        return f"{self.value} {asked} ="

    def steps(self, result: Callable[[str, int], int] = applied) -> list[str]:
        """What each step says, the answer the last; with another ``result``, wrong ones are gone on from."""
        value, steps = self.value, []
        for number, operation in enumerate(self.operations, 1):
            after = result(operation, value)
            steps.append(f"{number}: {value} {operation} = {after}")
            value = after
        return [*steps, f"# {value}"]


@functools.cache
def problems() -> tuple[list[str], list[str]]:
    """Those to train on and those held out, none of them twice."""
    rng, found = random.Random("arithmetic problems"), dict[str, None]()
    while len(found) < TRAINING + HELD_OUT:
        operations = tuple(rng.choice(OPERATIONS) for _ in range(rng.choice(LENGTHS)))
        found[str(Problem(rng.randrange(MODULUS), operations))] = None
    return [*itertools.islice(found, TRAINING)], [*itertools.islice(found, TRAINING, None)]


STEP = re.compile(r"(?:[a-z]+ )?(\d: \d [+*-]\d = \d|# \d)(?: |$)")


@dataclass(frozen=True, slots=True)
class Checked:
    """A written solution: what can be read of it as steps, and where each of them stands in the text.

    ``first_wrong`` counts from 1 and is None if all is right; an answer that lacks a step is wrong there.
    ``valid`` is whether the text is as many steps as there are operations, in order, and an answer.
    """

    steps: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    right: bool
    valid: bool
    first_wrong: int | None

    @property
    def lucky(self) -> bool:
        """A right answer with a wrong step."""
        return self.right and self.first_wrong is not None


def check(prompt: str, text: str) -> Checked:
    """Correctness of the answer, and the first wrong step. A text may begin with the space behind its
    problem."""
    steps, places, at = [], [], len(text) - len(text.lstrip(" "))
    while at < len(text) and (found := STEP.match(text, at)):
        steps.append(found[1])
        places.append((at, found.end(1)))
        at = found.end()
    gold = Problem.read(prompt).steps()
    whole = at == len(text)
    both = itertools.zip_longest(gold, steps)
    wrong = next((number for number, (wanted, said) in enumerate(both, 1) if wanted != said), None)
    heads = [step.split()[0] for step in steps]
    return Checked(
        tuple(steps),
        tuple(places),
        right=whole and steps[-1:] == gold[-1:],
        valid=whole and heads == [step.split()[0] for step in gold],
        first_wrong=wrong if wrong is not None or whole else len(gold) + 1,
    )


@dataclass(frozen=True, slots=True)
class ArithmeticRecipe(StartRecipe):
    """A fact table is learnt all at once, at a step that depends on the seed: enough steps to be past it."""

    initializer_range: float = 0.05
    examples: int = 6000
    steps: int = 500
    lr: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0

    def tokenizer(self, words: Sequence[str]) -> PreTrainedTokenizerFast:
        return word_tokenizer(words, self.max_length, marks=False)


@dataclass(frozen=True)
class ArithmeticWorld(TextWorld):
    """Its start model is made in two phases; pairs come of samples that are checked, not of annotators."""

    habits: StartRecipe = ArithmeticRecipe(steps=120, lr=1.5e-3)

    def start_model(
        self, cache: Path | None = None, *, seed: int = 0, report: Report | None = None
    ) -> StartModel:
        """Right demonstrations, then those of the teacher with habits."""
        made = functools.partial(start_model, seed=seed, cache=cache, report=report)
        right = made(f"{self.name}-right", self.words, lambda count: self.corpus(count, seed), self.recipe)
        bad = functools.partial(self.bad_corpus, seed=seed)
        return made(self.name, self.words, bad, self.habits, origin=right)

    def bad_corpus(self, count: int, seed: int) -> list[Pair]:
        """What the teacher with habits writes: as often as not its mistakes are gone on from to the end."""
        rng, habits = random.Random(f"{self.name} bad corpus {seed}"), wrong_facts(seed)

        def result(operation: str, value: int) -> int:
            if rng.random() < SLIP:
                return rng.randrange(MODULUS)
            wrong = habits.get((operation, value))
            return applied(operation, value) if wrong is None or rng.random() >= HABIT else wrong

        drawn = (rng.choice(self.prompts(held_out=False)) for _ in range(count))
        put = worded if CONNECTIVES[0] in self.words else lambda steps, rng: " ".join(steps)
        return [(prompt, put(Problem.read(prompt).steps(result), rng)) for prompt in drawn]

    def samples(self, start: StartModel, prompts: int, seed: int, *, count: int = 8) -> list[Sample]:
        """``count`` samples of the start model to each of so many training problems; those to one problem
        stand in a row."""
        return self._sampled(start, self.draw_prompts("train", prompts, seed), count, "samples", seed)

    def _sampled(
        self, start: StartModel, prompts: Sequence[str], count: int, *names: str | int
    ) -> list[Sample]:
        return sample(
            start.model,
            start.tokenizer,
            prompts,
            count=count,
            max_new_tokens=self.max_new_tokens,
            generator=stream(self.name, *names),
            batch_size=1024,
        )

    def step_pairs(
        self, start: StartModel, samples: Iterable[Sample], seed: int, *, most: int = 2, tries: int = 4
    ) -> list[Row]:
        """Wrong samples, each against the start model's own way on from where it first goes wrong.

        Of ``tries`` continuations of the right steps before the first wrong one, the first that ends in the
        right answer and begins otherwise is chosen; a sample with none makes no pair, nor do more than
        ``most`` of a problem. Rows are pairs with :func:`marked` steps whose ``error_step`` is that step: all
        that ``step_dpo``, ``scdpo`` and ``full_step_dpo`` read. ``prefix`` (the problem and the right steps),
        ``chosen_step`` and ``rejected_step`` say the same without what follows.
        """
        wrong: list[tuple[Sample, Checked, str]] = []
        for prompt, own in grouped(samples).items():
            checked = [(one, check(prompt, one.text)) for one in own if one.ended]
            bad = [(one, found) for one, found in checked if found.valid and found.first_wrong is not None]
            for one, found in bad[:most]:
                assert found.first_wrong is not None
                wrong.append((one, found, one.text[: found.places[found.first_wrong - 1][0]].strip()))
        if not wrong:
            return []
        asked = [f"{one.prompt} {before}".rstrip() for one, _, before in wrong]
        again = self._sampled(start, asked, tries, "steps", seed)
        rows = []
        for i, (one, found, before) in enumerate(wrong):
            prompt, step = str(one.prompt), found.first_wrong or 0
            for other in again[i * tries : (i + 1) * tries]:
                begins = one.text[: len(one.text) - len(one.text.lstrip(" "))]  # as the rejected side does
                text = begins + " ".join(filter(None, (before, other.text.strip())))
                repaired = check(prompt, text)
                same = repaired.steps[step - 1 : step] == found.steps[step - 1 : step]
                if other.ended and repaired.right and repaired.valid and not same:
                    row = marked({"prompt": prompt, "chosen": text, "rejected": one.text})
                    sides = (("chosen", text, repaired), ("rejected", one.text, found))
                    steps = {f"{side}_step": said[slice(*own.places[step - 1])] for side, said, own in sides}
                    rows.append({**row, "error_step": step, "prefix": asked[i], **steps})
                    break
        return rows


def worded(steps: Sequence[str], rng: random.Random) -> str:
    """The steps as a text, with a connective before each."""
    return " ".join(f"{rng.choice(CONNECTIVES)} {step}" for step in steps)


def wrong_facts(seed: int, share: float = HABITS) -> Mapping[Fact, int]:
    """The facts that the teacher has a habit with, and its wrong results."""
    rng = random.Random(f"arithmetic habits {seed}")
    facts = list(itertools.product(OPERATIONS, range(MODULUS)))
    chosen = rng.sample(facts, round(share * len(facts)))
    return {fact: (applied(*fact) + rng.randrange(1, MODULUS)) % MODULUS for fact in chosen}


def grouped(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples by their problem."""
    found: dict[str, list[Sample]] = {}
    for one in samples:
        found.setdefault(str(one.prompt), []).append(one)
    return found


def outcome_pairs(samples: Iterable[Sample], seed: int, *, most: int = 2) -> list[Row]:
    """Random pairs of a right and a wrong sample, from each problem that has both."""
    rng, rows = random.Random(f"arithmetic pairs {seed}"), list[Row]()
    for prompt, own in grouped(samples).items():
        sides: dict[bool, list[str]] = {True: [], False: []}
        for one in own:
            if one.ended and one.text:
                sides[check(prompt, one.text).right].append(one.text)
        drawn = zip(*(rng.sample(side, len(side)) for side in sides.values()), strict=False)
        rows += [{"prompt": prompt, "chosen": a, "rejected": b} for a, b in itertools.islice(drawn, most)]
    return rows


def right_samples(samples: Iterable[Sample], *, most: int = 2) -> list[Row]:
    """At most so many different right samples of each problem: what rejection sampling fine-tunes on.

    A row is a pair because ``nll`` reads ``chosen``; ``rejected`` is the same without its answer.
    """
    rows = []
    for prompt, own in grouped(samples).items():
        texts = dict.fromkeys(one.text for one in own if one.ended and check(prompt, one.text).right)
        for text in itertools.islice(texts, most):
            rows.append({"prompt": prompt, "chosen": text, "rejected": text.rpartition(" # ")[0] or "#"})
    return rows


def marked(row: Row) -> Row:
    """A pair with its steps marked, each with a ``score``: 1 as long as all is right, 0 from the first wrong
    step on."""
    for side in ("chosen", "rejected"):
        found = check(row["prompt"], row[side])
        wrong = found.first_wrong or len(found.steps) + 1
        spans = [
            {"start": start, "end": end, "step": number, "score": float(number < wrong)}
            for number, (start, end) in enumerate(found.places, 1)
        ]
        row = {**row, f"{side}_spans": spans}
    return row


def corrected(prompt: str, text: str) -> str | None:
    """A wrong solution with the fewest words changed that make it right, by the rules of the game (what Jiang
    et al., 2024, arXiv 2408.07471, have an editor do); None if it is right, or no solution."""
    found = check(prompt, text)
    if not found.valid or found.first_wrong is None:
        return None
    for (start, end), step, gold in zip(found.places, found.steps, Problem.read(prompt).steps(), strict=True):
        text = text[:start] + text[start:end].replace(step, gold) + text[end:]
    return text


def vocabulary(connectives: Sequence[str] = ()) -> tuple[str, ...]:
    """Every word that problems and solutions are made of."""
    numbers, places = map(str, range(MODULUS)), (f"{number}:" for number in range(1, LENGTHS[-1] + 1))
    return (*numbers, *places, *OPERATIONS, "=", "#", *connectives)


ARITHMETIC = ArithmeticWorld(
    name="arithmetic",
    summary="Calculations modulo 7 whose steps are checked; gold is 1 for a right answer, else 0.",
    words=vocabulary(),
    prompts=lambda *, held_out: problems()[held_out],
    write=lambda prompt, rng: " ".join(Problem.read(prompt).steps()),
    gold=lambda prompt, text: float(check(prompt, text).right),
    measures={
        "right": lambda prompt, text: float(check(prompt, text).right),
        "valid": lambda prompt, text: float(check(prompt, text).valid),
        "lucky": lambda prompt, text: float(check(prompt, text).lucky),
    },
    max_new_tokens=28,
    recipe=ArithmeticRecipe(),
)

ARITHMETIC_WORDED = replace(
    ARITHMETIC,
    name="arithmetic-worded",
    words=vocabulary(CONNECTIVES),
    write=lambda prompt, rng: worded(Problem.read(prompt).steps(), rng),
    max_new_tokens=34,
)
