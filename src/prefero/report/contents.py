"""The sections of the page: monitors that fired, samples, data, settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefero.report.charts import histogram
from prefero.report.curves import Figure
from prefero.report.folder import Run, section
from prefero.report.numbers import GROUPS, date, duration, number, percent
from prefero.training.monitors import MONITORS

MOST_SAMPLES = 12
MOST_BETWEEN = 3
"""Answers to a prompt from during training that are shown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A monitor that fired, as shown; ``method`` names the run of a comparison."""

    title: str
    message: str
    step: str
    value: str
    threshold: str
    advice: str
    paper: str
    remedies: tuple[str, ...]
    method: str = ""
    colour: str = ""


def findings(run: Run, method: str = "", colour: str = "") -> list[Finding]:
    return [
        Finding(
            title=str(fired.get("title") or fired.get("monitor") or "Monitor"),
            **{name: str(fired.get(name, "")) for name in ("message", "advice", "paper")},
            **{name: number(fired.get(name)) for name in ("step", "value", "threshold")},
            remedies=tuple(str(key) for key in fired.get("remedies") or ()),
            method=method,
            colour=colour,
        )
        for fired in run.findings
    ]


def watching(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The titles of the monitors that could watch all these runs, and of the others."""
    watching = [monitor.title for monitor in MONITORS if all(monitor.watches(run.history) for run in runs)]
    return watching, [monitor.title for monitor in MONITORS if monitor.title not in watching]


@dataclass(frozen=True, slots=True)
class Version:
    """A response to a sample's prompt with its author and its scores; text, or the address of an image."""

    label: str
    text: str
    colour: str
    scores: tuple[str, ...] = ()
    image: str = ""


@dataclass(slots=True)
class Sample:
    prompt: str
    versions: list[Version] = field(default_factory=list)


def samples(runs: Sequence[tuple[Run, str, str]]) -> tuple[list[Sample], int]:
    """Prompts with their responses before and after training, and the number of prompts; of a run alone also
    some of those between. ``runs`` come with the label of their responses and their CSS class."""
    by_prompt: dict[str, Sample] = {}
    for run, label, colour in runs:
        for raw in run.samples:
            prompt = text_of(raw.get("prompt"))
            sample = by_prompt.setdefault(prompt, Sample(prompt))
            scores = section(raw, "scores")
            if not sample.versions:
                if raw.get("chosen") is not None:
                    sample.versions.append(Version("chosen", text_of(raw["chosen"]), "prompt"))
                sample.versions.append(_version("before", "before", "start", raw, scores))
            between = list(_between(raw))
            sample.versions += between if len(runs) == 1 else []
            if "after" in raw or not between:
                sample.versions.append(_version("after", label, colour, raw, scores))
    return list(by_prompt.values())[:MOST_SAMPLES], len(by_prompt)


def _between(raw: Mapping[str, Any]) -> Iterator[Version]:
    """Some of the answers from during training, evenly spread; of a run that is finished those before the
    step of the model that is kept."""
    steps = [one for one in raw.get("steps") or () if isinstance(one, Mapping)]
    steps = [one for one in steps if "after" not in raw or one.get("step", 0) < raw.get("step", 0)]
    shown = {round(i * (len(steps) - 1) / (MOST_BETWEEN - 1)) for i in range(MOST_BETWEEN)} if steps else ()
    for one in (steps[place] for place in sorted(shown)):
        score = (f"score {number(one['score'])}",) if "score" in one else ()
        response = one.get("response")
        yield Version(f"step {number(one.get('step'))}", text_of(response), "train", score, drawn(response))


def _version(
    when: str, label: str, colour: str, raw: Mapping[str, Any], scores: Mapping[str, Any]
) -> Version:
    response = raw.get(when)
    return Version(label, text_of(response), colour, _scores(scores, when), drawn(response))


def drawn(response: object) -> str:
    """The address of an image that is embedded in the file; empty for everything else."""
    address = response.get("image") if isinstance(response, Mapping) else None
    return address if isinstance(address, str) and address.startswith("data:image/png;base64,") else ""


def text_of(text: object) -> str:
    """Plain text, or the turns of a conversation."""
    if isinstance(text, list):
        return "\n\n".join(
            f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in text if isinstance(turn, Mapping)
        )
    return "" if text is None or drawn(text) else str(text)


def _scores(scores: Mapping[str, Any], when: str) -> tuple[str, ...]:
    """``{"before": 1}``, ``{"before": {"gold": 1}}`` and ``{"gold": {"before": 1}}`` are read."""
    inner = scores.get(when)
    if isinstance(inner, int | float):
        return (number(inner),)
    if isinstance(inner, Mapping):
        return tuple(f"{name} {number(value)}" for name, value in inner.items())
    return tuple(
        f"{name.replace('_', ' ')} {number(both[when])}"
        for name, both in scores.items()
        if isinstance(both, Mapping) and when in both
    )


@dataclass(frozen=True, slots=True)
class DataSection:
    """A data set as the page shows it: facts, a histogram of lengths, notes."""

    title: str
    facts: tuple[tuple[str, str], ...]
    lengths: Figure | None
    legend: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def data_sections(run: Run) -> list[DataSection]:
    data = section(run.record, "data")
    titles = {"train": "Training data", "eval": "Held-out data"}
    sections = []
    for name, title in titles.items():
        summary = section(data, name)
        by_name = {
            key: inner for key, inner in summary.items() if isinstance(inner, Mapping) and "examples" in inner
        }
        for key, inner in by_name.items():
            sections.append(_data_section(f"{title}, {key}", inner))
        if summary and not by_name:
            sections.append(_data_section(title, summary))
    return sections


def first_rows(run: Run) -> list[dict[str, Any]]:
    """The first rows as they were trained: origin, texts by name, and remarks."""
    rows = run.record.get("first_rows")
    shown = []
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, Mapping) or not isinstance(row.get("texts"), list):
            continue
        remarks = list(map(str, row.get("notes") or ()))
        remarks += (
            [f"columns that are not read: {', '.join(map(str, row['unread']))}"] if row.get("unread") else []
        )
        texts = [(str(part.get("name")), str(part.get("text"))) for part in row["texts"]]
        shown.append({"origin": str(row.get("origin", "")), "texts": texts, "remarks": remarks})
    return shown


def _data_section(title: str, summary: Mapping[str, Any]) -> DataSection:
    given = summary.get("notes")
    notes = tuple(map(str, given)) if isinstance(given, list | tuple) else ()
    return DataSection(title, tuple(_data_facts(summary)), *_lengths(summary), notes)


def _data_facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if summary.get("name"):
        yield "source", str(summary["name"]) + (f", {summary['format']}" if summary.get("format") else "")
    for key, label in (("examples", "examples"), ("responses", "responses"), ("skipped", "rows skipped")):
        if key in summary:
            yield label, number(summary[key])
    if summary.get("images"):
        yield "images", str(summary["images"])
    for reason, count in section(summary, "dropped").items():
        yield f"left out: {str(reason).replace('_', ' ')}", number(count)
    if "max_length" in summary:
        limit = summary["max_length"]
        yield "longest allowed", "no limit" if limit is None else f"{number(limit)} tokens"
    if "truncated_tokens" in summary:
        yield (
            "cut off",
            f"{number(summary['truncated_tokens'])} tokens; prompts: "
            f"{number(summary.get('truncated_prompts', 0))}, responses: "
            f"{number(summary.get('truncated_responses', 0))}",
        )
    if summary.get("empty_responses"):
        yield "empty responses", number(summary["empty_responses"])
    for name, table in section(summary, "lengths").items():
        if isinstance(table, Mapping) and {"median", "p90", "max"} <= set(table):
            what = "prompt and response" if name == "all" else f"{name} length"
            quantiles = ", ".join(f"{label} {number(round(table[key]))}" for label, key in _QUANTILES)
            yield what, f"{quantiles} tokens"
    if isinstance(summary.get("longer_chosen"), int | float):
        yield "chosen is longer", f"in {percent(summary['longer_chosen'])} of the pairs"
    if isinstance(summary.get("sharing"), int | float):
        unique, padded = number(summary.get("tokens_unique")), number(summary.get("tokens_padded"))
        yield (
            "sharing",
            f"{number(summary['sharing'])} times fewer tokens to compute: {unique} instead of {padded}",
        )


_QUANTILES = (("median", "median"), ("90 % up to", "p90"), ("longest", "max"))


def _lengths(summary: Mapping[str, Any]) -> tuple[Figure | None, tuple[tuple[str, str], ...]]:
    table = section(summary, "histogram")
    edges = table.get("edges")
    colours = {"prompt": "prompt", "response": "train"}
    for better, worse in GROUPS:
        colours |= {better: "better", worse: "worse"}
    drawn_counts = {colours[name]: counts for name, counts in table.items() if name in colours and counts}
    if not isinstance(edges, list) or len(edges) < 2 or not drawn_counts:
        return None, ()
    legend = tuple((name, colours[name]) for name in table if name in colours)
    names = ", ".join(name for name, _ in legend)
    chart = histogram(edges, drawn_counts, describe=f"Histogram of the lengths in tokens: {names}")
    return Figure("Lengths", "responses, by number of tokens", chart), legend


REFERENCES = {
    "cached": "a model that does not change, scored once into the disk cache",
    "frozen": "a copy of the policy as it starts",
    "adapters_off": "the policy without its adapters",
    "checkpoint": "another model, which does not change",
    "moving": "a copy that follows the policy",
    "trained": "another model, which is trained too",
}
"""The kinds of reference in words."""


def settings(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """The settings of a run by group: method, model, run, machine."""
    record = run.record
    method, model = section(record, "method"), section(record, "model")
    groups = {
        "Method": [
            ("key", str(method.get("key", ""))),
            *((name, plain(value)) for name, value in section(method, "arguments").items()),
            ("paper", str(method.get("citation") or method.get("paper") or "")),
        ],
        "Model": [(name, plain(value)) for name, value in model.items()]
        + [("rows", str(record.get("layout", "")))],
        "Measured against": [
            (name, REFERENCES.get(str(kind), str(kind)))
            for name, kind in section(record, "references").items()
        ],
        "Run": [
            ("folder", str(run.folder)),
            ("learning rate", plain(record["learning_rate"]) if record.get("learning_rate") else ""),
            ("started", date(record["created"]) if record.get("created") else ""),
            ("took", duration(record["seconds"]) if isinstance(record.get("seconds"), int | float) else ""),
            ("prefero", str(record.get("prefero", ""))),
        ],
        "Machine": list(flat(section(record, "machine"))),
    }
    known = [(title, [fact for fact in facts if fact[1]]) for title, facts in groups.items()]
    return [(title, facts) for title, facts in known if facts]


def recipe(run: Run) -> list[tuple[str, str]]:
    """The whole recipe under dotted keys."""
    return list(flat(section(run.record, "config")))


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings under dotted keys."""
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", plain(value)


def plain(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        digits, exponent, power = number(value, 6).partition("e")
        return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + exponent + power
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return (
        {None: "–", True: "yes", False: "no"}.get(value, str(value)) if not isinstance(value, dict) else "–"
    )
