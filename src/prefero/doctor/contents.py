"""Contents of rows: unreadable, empty and tied rows, rows without a preference, template marks, scripts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache

from prefero.data.examples import says_something
from prefero.doctor.checks import NEVER, Finding, Look, Measure, Remedy, Specimen
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
    return look.finding(
        "unreadable",
        "Rows that cannot be read",
        share,
        f"{len(skipped):,} of {share.of:,} rows do not have the fields of their layout "
        f"({look.corpus.examples.format})." + (" Training stops at the first of them." if skipped else ""),
        limits=(0, 0),
        why="The problem of each row is named below. Often an export corrupted one field.",
        remedies=(
            Remedy(
                "Train without them; the run counts and lists the rows that it skipped.",
                look.commands.train("dpo", data__skip_bad_rows="true"),
            ),
            Remedy("Or write the readable rows to a file.", look.commands.without("unreadable")),
        ),
        specimens=[Specimen(problem, ()) for problem in skipped[:5]],
    )


def _empty(look: Look) -> Finding:
    rows = tuple(
        row
        for row, example in enumerate(look.corpus.examples)
        if any(not says_something(response.content) for response in example.responses)
    )
    share = Measure.share("rows with an empty response", len(rows), len(look.corpus))
    return look.finding(
        "empty",
        "Empty responses",
        share,
        f"{len(rows):,} of {len(look.corpus):,} rows have an empty response, which is scored as its end "
        "token alone.",
        limits=(0.001, 0.05),
        why="An empty response that annotators judged teaches the policy when to say nothing. A response "
        "that an export lost teaches it that silence is bad, or good.",
        remedies=(Remedy("If nobody judged these rows, remove them.", look.commands.without("empty")),),
        rows=rows,
    )


def _bare(look: Look) -> Finding:
    rows = look.corpus.bare
    share = Measure.share("rows without a preference", len(rows), len(look.corpus))
    return look.finding(
        "bare",
        "Rows without a preference",
        share,
        f"{len(rows):,} of {len(look.corpus):,} rows have responses without scores, ranks or labels.",
        limits=(0, 0),
        why="No method can learn from them, and most methods refuse the whole file.",
        remedies=(Remedy("Remove them, or give them scores.", look.commands.without("bare")),),
        rows=rows,
    )


def _ties(look: Look) -> Finding:
    rows = look.corpus.ties
    share = Measure.share("ties", len(rows), len(look.corpus))
    pairs = all(set(look.corpus.examples[row].roles) == {"chosen", "rejected"} for row in rows)
    learn = (Remedy("Learn from them too.", look.commands.train("todo")),) if pairs else ()
    return look.finding(
        "ties",
        "Ties",
        share,
        f"{len(rows):,} of {len(look.corpus):,} rows prefer neither side. Pairwise methods skip them, and "
        "so do the other checks.",
        limits=(0.02, NEVER),
        stake=share.value / 2,
        why="A tie says that two responses are equally good, which a pairwise method cannot express. Ties "
        "that are turned into pairs have random labels.",
        papers=("Guo et al., 2024, arXiv 2411.02442",),
        remedies=(
            *learn,
            Remedy("Or remove them." if learn else "Remove them.", look.commands.without("ties")),
        ),
        rows=rows,
    )


def check_marks(look: Look) -> Iterator[Finding]:
    """Turn marks and end tokens that stand as text in responses."""
    rows: list[int] = []
    marks: Counter[str] = Counter()
    count = ended = 0
    for row, text in look.corpus.responses:
        count += 1
        if marks_here := MARKS.findall(text):
            rows.append(row)
            marks.update({mark.strip() for mark in marks_here})
            ended += len(marks_here) == 1 and text.rstrip().endswith(marks_here[0].strip())
    if not count:
        return
    share = Measure.share("responses with marks of a template", len(rows), count)
    common = ", ".join(f"“{mark}” {n:,}" for mark, n in marks.most_common(5))
    yield look.finding(
        "markup",
        "Marks of a template in responses",
        share,
        f"{len(rows):,} of {count:,} responses contain a turn mark or an end token as text"
        + (f": {common}." if common else ".")
        + (
            f" Of these, {ended:,} only end with one, which a template that writes it does not add again."
            if ended
            else ""
        ),
        limits=(0.002, 0.02 if ended < len(rows) else NEVER),
        of="responses",
        measures=[Measure.share("responses that only end with a mark", ended, count)],
        why="The chat template adds such marks itself. In a response they teach the policy to speak for the "
        "user, or to write an end token that does not end the response.",
        remedies=(Remedy("Remove these rows, or cut the marks out.", look.commands.without("markup")),),
        rows=tuple(dict.fromkeys(rows)),
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
    yield look.finding(
        "scripts",
        "Scripts",
        share,
        f"Scripts of the responses: {common}. {len(differing):,} of {count:,} responses are not in the "
        "script of their prompt.",
        limits=(0.01, 0.1),
        of="responses",
        why="The policy learns to answer in the wrong language as it learns any other habit. Where the "
        "prompt asks for a translation, the response is right. Languages that share a script are not told "
        "apart.",
        remedies=(
            Remedy("Remove these rows, unless the prompts asked for it.", look.commands.without("scripts")),
        ),
        rows=tuple(dict.fromkeys(differing)),
    )


_ALPHABETS = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana"}
"""Scripts that go by another name than the first word of their letters' Unicode names."""


def script(text: str) -> str:
    """The script of most letters of a text, "" without any; a text with any Kana is Japanese, "Kana"."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else ""
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if character.isalpha():
            letters[_script_of(character)] += count
    if "Kana" in letters:
        letters["Kana"] += letters.pop("Han", 0)
    return max(letters, key=letters.__getitem__, default="")


@cache
def _script_of(letter: str) -> str:
    plain = unicodedata.normalize("NFKC", letter)[0]
    first = unicodedata.name(plain, "").partition(" ")[0]
    return _ALPHABETS.get(first, first.capitalize())
