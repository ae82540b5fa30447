"""Differences between the two sides of a pair: changed words, telling words, and writers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from prefero.doctor.checks import FEW, Finding, Look, Measure, Remedy, Unasked, level_of, shared, too_few
from prefero.doctor.corpus import fingerprint
from prefero.doctor.repeats import distinct_pairs
from prefero.evaluate.intervals import Interval, wilson
from prefero.report.numbers import percent

COMPARED = 2000
"""Words at the beginning of a text that are compared."""

ALIKE = 0.1
"""The share of changed words up to which two responses are nearly the same."""

FOLDS = 5
MOST = 10_000
"""Pairs on which the classifier of words is fitted and tested."""

FEWEST = 40
"""Pairs below which a classifier cannot be tested."""

TOKEN = r"\w+|[^\w\s]|\n"
LENGTH = "(length)"

MOST_WRITERS = 5
"""Writers that a message names."""


def words(text: str) -> list[str]:
    """The first words of a text."""
    return text.split()[:COMPARED]


def shared_beginning(first: Sequence[str], second: Sequence[str]) -> int:
    """The number of words that two texts share at their beginning."""
    for index, (ours, theirs) in enumerate(zip(first, second, strict=False)):
        if ours != theirs:
            return index
    return min(len(first), len(second))


def changed_share(first: Sequence[str], second: Sequence[str]) -> float:
    """The share of the words of both texts that are deleted or inserted to turn one into the other."""
    total = len(first) + len(second)
    return 1 - 2 * common_words(first, second) / total if total else 0.0


def common_words(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, where the bits of one number stand for the words of a
    text. Crochemore et al., 2001; Hyyrö, 2004: n additions of numbers of m bits."""
    head = shared_beginning(first, second)
    first, second = first[head:], second[head:]
    tail = shared_beginning(first[::-1], second[::-1])
    if tail:
        first, second = first[:-tail], second[:-tail]
    if not first or not second:
        return head + tail
    positions: dict[str, int] = {}
    for index, word in enumerate(first):
        positions[word] = positions.get(word, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        if matches := row & positions.get(word, 0):
            row = (row + matches | row - matches) & full
    return head + tail + len(first) - row.bit_count()


def check_differences(look: Look) -> Iterator[Finding]:
    """Pairs whose two sides differ in a few words."""
    pairs = look.corpus.pairs
    if not pairs:
        return
    changed, beginnings = [], []
    for pair in pairs:
        chosen, rejected = words(pair.chosen), words(pair.rejected)
        changed.append(changed_share(chosen, rejected))
        beginnings.append(2 * shared_beginning(chosen, rejected) / max(len(chosen) + len(rejected), 1))
    rows = tuple(pair.row for pair, share in zip(pairs, changed, strict=True) if share <= ALIKE)
    near = Measure.share("pairs that differ in at most a tenth of their words", len(rows), len(pairs))
    half = sum(share >= 0.5 for share in beginnings)
    opening = Measure.share("pairs that share half of their words at the beginning", half, len(pairs))
    middle = median(changed)
    yield look.finding(
        "near_identical",
        "Nearly identical responses",
        near,
        f"{len(rows):,} of {len(pairs):,} pairs differ in at most a tenth of their words. In the median pair "
        f"{percent(middle)} of the words differ, and {percent(median(beginnings))} of the words are a common "
        "beginning.",
        limits=(0.02, 0.1),
        of="pairs",
        measures=[opening, Measure("changed words, median pair", middle)],
        why="A loss on the difference of two responses learns nothing from the words that they share. Its "
        "effect on the few other words can lower the chosen response along with the rejected one.",
        papers=("Pal et al., 2024, arXiv 2402.13228", "Razin et al., 2024, arXiv 2410.08847"),
        remedies=(
            Remedy("Keep the likelihood of the chosen response from falling.", look.commands.train("dpop")),
            Remedy(
                "Or add its likelihood to the loss.", look.commands.train("dpo", objective__plus__nll=0.2)
            ),
            Remedy("Or remove these pairs.", look.commands.without("near_identical")),
        ),
        rows=rows,
    )


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear classifier, tested on prompts that it was not fitted on. ``leads`` are its scores of the
    chosen minus those of the rejected responses; ``accuracy`` counts ties half; its interval is over distinct
    ``prompts``. ``telling`` are the features with the largest weights for each side."""

    leads: NDArray[np.float64]
    accuracy: float
    interval: Interval
    telling: tuple[tuple[str, ...], tuple[str, ...]]
    prompts: int


def probe(
    prompts: Sequence[object], chosen: Sequence[str], rejected: Sequence[str], *, seed: int = 0
) -> Probe:
    """Fit and test a classifier of the words, word pairs, punctuation and length by which one response
    differs from the other (Wang et al., 2025, arXiv 2504.02193, probe hidden states). Equal ``prompts`` share
    a fold."""
    from sklearn.linear_model import LogisticRegression

    features, names = _features([*chosen, *rejected])
    count = len(chosen)
    difference = features[:count] - features[count:]
    # A classifier needs two classes: every second pair is turned round.
    label = np.where(np.arange(count) % 2, -1, 1)
    turned = difference.multiply(label[:, None]).tocsr()

    def fitted(pairs: NDArray[np.bool_]) -> NDArray[np.float64]:
        model = LogisticRegression(solver="liblinear", fit_intercept=False, C=3.0, random_state=seed)
        return model.fit(turned[pairs], label[pairs]).coef_.ravel()

    numbers: dict[object, int] = {}
    prompt_numbers = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
    folds = np.random.default_rng(seed).permutation(len(numbers))[prompt_numbers] % FOLDS
    leads = np.zeros(count)
    for fold in range(FOLDS):
        tested = folds == fold
        if tested.any() and not tested.all():
            leads[tested] = difference[tested] @ fitted(~tested)
    accuracy = float(((leads > 0) + 0.5 * (leads == 0)).mean())
    weights = fitted(np.ones(count, bool))
    spread = np.sqrt(np.asarray(difference.multiply(difference).mean(0))).ravel()
    order = np.argsort(weights * spread)
    telling = (
        tuple(names[i] for i in order[::-1][:8] if weights[i] > 0),
        tuple(names[i] for i in order[:8] if weights[i] < 0),
    )
    return Probe(leads, accuracy, wilson(accuracy, len(numbers)), telling, len(numbers))


def _features(texts: Sequence[str]) -> tuple[csr_matrix, list[str]]:
    """Which words and word pairs a text has, and the logarithm of its length; and the features' names."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    vectors = CountVectorizer(
        token_pattern=TOKEN, ngram_range=(1, 2), min_df=3, max_features=50_000, binary=True, dtype=np.float32
    )
    lengths = csr_matrix(np.log1p([[len(text)] for text in texts]).astype(np.float32))
    try:
        counted = normalize(vectors.fit_transform(texts))
    except ValueError:  # no word occurs in three responses
        return lengths, [LENGTH]
    return hstack([counted, lengths]).tocsr(), [*vectors.get_feature_names_out(), LENGTH]


@shared
def probe_of(look: Look) -> Probe | None:
    """The classifier of words on the distinct pairs, if there are enough of them to test it."""
    pairs = look.some(distinct_pairs(look), MOST)
    if len(pairs) < FEWEST:
        return None
    return probe(
        [fingerprint(pair.prompt) for pair in pairs],
        [pair.chosen for pair in pairs],
        [pair.rejected for pair in pairs],
        seed=look.seed,
    )


def sample_of_probe(look: Look) -> str:
    """The pairs that the classifier was fitted on, if not all."""
    count = len(distinct_pairs(look))
    return f" On {MOST:,} of {count:,} pairs, drawn at random." if count > MOST else ""


def check_words(look: Look) -> Iterator[Finding | Unasked]:
    """Words as predictors of the label."""
    title = "Words that tell the sides apart"
    if not look.corpus.pairs:
        yield Unasked(title, "responses are labelled one by one, not in pairs")
        return
    result = probe_of(look)
    if result is None:
        yield Unasked(title, f"fewer than {FEWEST} pairs")
        return
    accuracy = Measure("pairs ordered correctly by a classifier of words", result.accuracy, result.interval)
    chosen, rejected = (", ".join(map(_quoted, side)) or "nothing" for side in result.telling)
    yield Finding(
        "separability",
        title,
        level_of(accuracy, look=0.75, act=0.9),
        f"A linear classifier of words, punctuation and length orders {percent(result.accuracy)} of the "
        "pairs correctly on prompts that it was not fitted on; chance is 50 %. Typical of the chosen "
        f"responses: {chosen}; of the rejected: {rejected}.",
        (accuracy,),
        stake=max(0.0, 2 * result.accuracy - 1),
        why="The style of two sources (a stronger model against one's own, people against a model) tells "
        "their responses apart. The policy then learns the style: the loss falls quickly, and the policy "
        "does not learn what the labels are about.",
        papers=("Wang et al., 2025, arXiv 2504.02193",),
        threshold="75 %; to act on from 90 %",
        remedies=(
            Remedy(
                "Sample both responses from the model that is to be aligned, and let a judge rank them. "
                "Until then, give unlikely responses less weight.",
                look.commands.train("wpo"),
            ),
            Remedy(
                "Use a loss that saturates, and evaluate on held-out pairs of another source.",
                look.commands.compare("dpo", "ipo", "wpo"),
            ),
        ),
        sample=sample_of_probe(look).strip(),
    )


def _quoted(feature: str) -> str:
    return feature if feature == LENGTH else "“" + feature.replace("\n", "⏎") + "”"


def check_writers(look: Look) -> Iterator[Finding | Unasked]:
    """Writers as predictors of the label."""
    writers = [pair.writers for pair in look.corpus.pairs if pair.writers]
    if not writers:
        yield Unasked("Writers", "no row names the writers (chosen_model, rejected_model)")
        return
    if len(writers) < FEW:
        yield too_few("Writers", len(writers), "pairs with writers")
        return
    differing = [(winner, loser) for winner, loser in writers if winner != loser]
    different = Measure.share("pairs of two writers", len(differing), len(writers))
    right = predicted(writers)
    accuracy = Measure("pairs ordered correctly by their writers' names", right, wilson(right, len(writers)))
    wins = Counter(winner for winner, _ in differing)
    seen = Counter(name for both in differing for name in both)
    ranked = sorted(seen, key=lambda name: wins[name] / seen[name], reverse=True)
    rates = "; ".join(
        f"{name} {percent(wins[name] / seen[name])} of {seen[name]:,}" for name in ranked[:MOST_WRITERS]
    )
    yield Finding(
        "writers",
        "Writers",
        level_of(accuracy, look=0.65, act=0.8),
        f"{len(differing):,} of {len(writers):,} pairs compare two writers, and their names alone order "
        f"{percent(right)} of all pairs correctly. Win rates against other writers: {rates}"
        + ("; …" if len(ranked) > MOST_WRITERS else "."),
        (accuracy, different),
        stake=max(0.0, 2 * right - 1),
        why="Where one writer nearly always wins, the pairs teach its style, whatever the labels are about.",
        papers=("Wang et al., 2025, arXiv 2504.02193",),
        threshold="65 %; to act on from 80 %",
        remedies=(
            Remedy(
                "Compare responses of the same writer, best the policy itself. Until then, give unlikely "
                "responses less weight.",
                look.commands.train("wpo"),
            ),
        ),
    )


def predicted(writers: Sequence[tuple[str, str]]) -> float:
    """The share of pairs whose chosen writer won more often in the other half of the data; a draw is half."""
    right = 0.0
    for half in (0, 1):
        balance: defaultdict[tuple[str, str], int] = defaultdict(int)
        for winner, loser in writers[1 - half :: 2]:
            balance[winner, loser] += 1
            balance[loser, winner] -= 1
        for winner, loser in writers[half::2]:
            lead = balance[winner, loser]
            right += 0.5 if lead == 0 or winner == loser else float(lead > 0)
    return right / len(writers)
