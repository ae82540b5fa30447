"""Contents of rows: unreadable, empty and tied rows, rows without a preference, template marks, scripts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from prefero.data.examples import says_something
from prefero.doctor.checks import Finding, Look, Measure, Remedy, Specimen, level_of
from prefero.doctor.corpus import prompt_text
from prefero.report.numbers import percent

MARKS = re.compile(
    r"<\|[a-z_]+\|>|</?s>|\[/?INST\]|<<SYS>>|<(?:start|end)_of_turn>"
    r"|\n\n(?:Human|Assistant):|\n### (?:Instruction|Response):"
)
"""Turn marks and end tokens of common chat templates."""


def check_rows(look: Look) -> Iterator[Finding]:
    """Rows that cannot be read, are empty, or state no preference."""
    yield _unreadable(look)
    yield _empty(look)
    if look.corpus.bare:
        yield _bare(look)
    if look.corpus.ties:
        yield _ties(look)


def _unreadable(look: Look) -> Finding:
    skipped = look.corpus.examples.skipped
    share = Measure.share("rows that cannot be read", len(skipped), len(skipped) + len(look.corpus))
    return Finding(
        "unreadable",
        "Rows that cannot be read",
        "act" if skipped else "fine",
        f"{len(skipped):,} of {share.of:,} rows do not have the fields of their layout "
        f"({look.corpus.examples.format})." + (" Training stops at the first of them." if skipped else ""),
        (share,),
        stake=share.value,
        why="The problem of each row is named below. Often an export corrupted one field.",
        threshold="any",
        remedies=(
            Remedy(
                "Train without them; the run counts and lists the rows that it skipped.",
                look.commands.train("dpo", data__skip_bad_rows="true"),
            ),
            Remedy("Or write the readable rows to a file.", look.commands.without("unreadable")),
        ),
        specimens=tuple(Specimen(problem, ()) for problem in skipped[:5]),
    )


def _empty(look: Look) -> Finding:
    rows = tuple(
        row
        for row, example in enumerate(look.corpus.examples)
        if any(not says_something(response.content) for response in example.responses)
    )
    share = Measure.share("rows with an empty response", len(rows), len(look.corpus))
    return Finding(
        "empty",
        "Empty responses",
        level_of(share, look=0.001, act=0.05),
        f"{len(rows):,} of {len(look.corpus):,} rows have an empty response, which is scored as its end "
        "token alone.",
        (share,),
        stake=share.value,
        why="An empty response that annotators judged teaches the policy when to say nothing. A response "
        "that an export lost teaches it that silence is bad, or good.",
        threshold="0.1 % of the rows; to act on from 5 %",
        remedies=(Remedy("If nobody judged these rows, remove them.", look.commands.without("empty")),),
        specimens=look.specimens(rows),
        rows=rows,
    )


def _bare(look: Look) -> Finding:
    rows = look.corpus.bare
    share = Measure.share("rows without a preference", len(rows), len(look.corpus))
    return Finding(
        "bare",
        "Rows without a preference",
        "act",
        f"{len(rows):,} of {len(look.corpus):,} rows have responses without scores, ranks or labels.",
        (share,),
        stake=share.value,
        why="No method can learn from them, and most methods refuse the whole file.",
        threshold="any",
        remedies=(Remedy("Remove them, or give them scores.", look.commands.without("bare")),),
        specimens=look.specimens(rows),
        rows=rows,
    )


def _ties(look: Look) -> Finding:
    rows = look.corpus.ties
    share = Measure.share("ties", len(rows), len(look.corpus))
    pairs = all(set(look.corpus.examples[row].roles) == {"chosen", "rejected"} for row in rows)
    learn = (Remedy("Learn from them too.", look.commands.train("todo")),) if pairs else ()
    return Finding(
        "ties",
        "Ties",
        level_of(share, look=0.02, act=1.1),
        f"{len(rows):,} of {len(look.corpus):,} rows prefer neither side. Pairwise methods skip them, and "
        "so do the other checks.",
        (share,),
        stake=share.value / 2,
        why="A tie says that two responses are equally good, which a pairwise method cannot express. Ties "
        "that are turned into pairs have random labels.",
        papers=("Guo et al., 2024, arXiv 2411.02442",),
        threshold="2 % of the rows",
        remedies=(*learn, Remedy("Or remove them.", look.commands.without("ties"))),
        specimens=look.specimens(rows),
        rows=rows,
    )


def check_marks(look: Look) -> Iterator[Finding]:
    """Turn marks and end tokens that stand as text in responses."""
    rows: list[int] = []
    marks: Counter[str] = Counter()
    count = 0
    for row, text in look.corpus.responses:
        count += 1
        if marks_here := set(MARKS.findall(text)):
            rows.append(row)
            marks.update(mark.strip() for mark in marks_here)
    if not count:
        return
    share = Measure.share("responses with marks of a template", len(rows), count)
    common = ", ".join(f"“{mark}” {n:,}" for mark, n in marks.most_common(5))
    distinct = tuple(dict.fromkeys(rows))
    yield Finding(
        "markup",
        "Marks of a template in responses",
        level_of(share, look=0.002, act=0.02),
        f"{len(rows):,} of {count:,} responses contain a turn mark or an end token as text"
        + (f": {common}." if common else "."),
        (share,),
        stake=share.value,
        why="The chat template adds such marks itself. In a response they teach the policy to speak for the "
        "user, or to write an end token that does not end the response.",
        threshold="0.2 % of the responses; to act on from 2 %",
        remedies=(Remedy("Remove these rows, or cut the marks out.", look.commands.without("markup")),),
        specimens=look.specimens(distinct),
        rows=distinct,
    )


def check_scripts(look: Look) -> Iterator[Finding]:
    """Responses in another script than their prompt."""
    prompt_scripts: dict[int, str] = {}
    scripts: Counter[str] = Counter()
    differing: list[int] = []
    count = 0
    for row, text in look.corpus.responses:
        count += 1
        if row not in prompt_scripts:
            prompt_scripts[row] = script(prompt_text(look.corpus.examples[row].prompt))
        own = script(text)
        scripts[own] += 1
        if own and prompt_scripts[row] and own != prompt_scripts[row]:
            differing.append(row)
    if not count:
        return
    share = Measure.share("responses in another script than the prompt", len(differing), count)
    common = ", ".join(f"{name or 'no letters'} {percent(n / count)}" for name, n in scripts.most_common(5))
    rows = tuple(dict.fromkeys(differing))
    yield Finding(
        "scripts",
        "Scripts",
        level_of(share, look=0.01, act=0.1),
        f"Scripts of the responses: {common}. {len(differing):,} of {count:,} responses are not in the "
        "script of their prompt.",
        (share,),
        stake=share.value,
        why="The policy learns to answer in the wrong language as it learns any other habit. Where the "
        "prompt asks for a translation, the response is right. Languages that share a script are not told "
        "apart.",
        threshold="1 % of the responses; to act on from 10 %",
        remedies=(
            Remedy("Remove these rows, unless the prompts asked for it.", look.commands.without("scripts")),
        ),
        specimens=look.specimens(rows),
        rows=rows,
    )


_BLOCKS = (
    (0x0041, "Latin"),
    (0x005B, ""),
    (0x0061, "Latin"),
    (0x007B, ""),
    (0x00C0, "Latin"),
    (0x0250, ""),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0700, ""),
    (0x0750, "Arabic"),
    (0x0780, ""),
    (0x0900, "Devanagari"),
    (0x0980, "Bengali"),
    (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"),
    (0x0B00, "Oriya"),
    (0x0B80, "Tamil"),
    (0x0C00, "Telugu"),
    (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"),
    (0x0D80, "Sinhala"),
    (0x0E00, "Thai"),
    (0x0E80, "Lao"),
    (0x0F00, "Tibetan"),
    (0x1000, "Burmese"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "Ethiopic"),
    (0x1380, ""),
    (0x1780, "Khmer"),
    (0x1800, ""),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, ""),
    (0x3040, "Kana"),
    (0x3100, ""),
    (0x3400, "Han"),
    (0xA000, ""),
    (0xAC00, "Hangul"),
    (0xD7B0, ""),
    (0xF900, "Han"),
    (0xFB00, ""),
    (0x20000, "Han"),
    (0x32000, ""),
)
"""The code points at which the letters of a script begin; the marks between scripts belong to none."""

_STARTS = np.asarray([start for start, _ in _BLOCKS])
_NAMES = np.asarray([name for _, name in _BLOCKS])


def script(text: str) -> str:
    """The script of most letters of a text, "" if there are none; a text with any Kana is Japanese,
    "Kana"."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else ""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    block = np.searchsorted(_STARTS, points, "right") - 1
    names, counts = np.unique(_NAMES[block[block >= 0]], return_counts=True)
    letters = {str(name): int(count) for name, count in zip(names, counts, strict=True) if name}
    if {"Kana", "Han"} <= set(letters):
        letters["Kana"] += letters.pop("Han")
    return max(letters, key=letters.__getitem__) if letters else ""
