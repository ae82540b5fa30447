"""Rows that cannot be read, say nothing, or prefer nothing."""

from __future__ import annotations

from collections.abc import Iterator

from prefero.data.examples import says_something
from prefero.doctor.findings import Finding, Measure, Remedy, Specimen, level_of
from prefero.doctor.look import Look


def check(look: Look) -> Iterator[Finding]:
    yield unreadable(look)
    yield empty(look)
    if look.corpus.bare:
        yield bare(look)
    if look.corpus.ties:
        yield ties(look)


def unreadable(look: Look) -> Finding:
    skipped = look.corpus.examples.skipped
    share = Measure.share("rows that cannot be read", len(skipped), len(skipped) + len(look.corpus))
    return Finding(
        "unreadable",
        "Rows that cannot be read",
        "act" if skipped else "fine",
        f"{len(skipped):,} of {share.of:,} rows are not as their layout ({look.corpus.examples.format}) "
        "wants them." + (" Training stops at the first." if skipped else ""),
        (share,),
        stake=share.value,
        why="What the rows lack is named below, row by row: often one field that an export spoilt.",
        threshold="any",
        remedies=(
            Remedy(
                "Train without them; a run counts and lists what it left out.",
                look.commands.train("dpo", data__skip_bad_rows="true"),
            ),
            Remedy("Or write the readable rows to a file.", look.commands.without("unreadable")),
        ),
        specimens=tuple(Specimen(problem, ()) for problem in skipped[:5]),
    )


def empty(look: Look) -> Finding:
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
        f"{len(rows):,} of {len(look.corpus):,} rows have a response that says nothing: it is "
        "scored as its end token alone.",
        (share,),
        stake=share.value,
        why="An empty response that was judged teaches when to say nothing; one that an export lost "
        "teaches that silence is bad, or good.",
        threshold="0.1 % of the rows; to act on from 5 %",
        remedies=(Remedy("If nobody judged them, leave them out.", look.commands.without("empty")),),
        specimens=look.specimens(rows),
        rows=rows,
    )


def bare(look: Look) -> Finding:
    rows = look.corpus.bare
    share = Measure.share("rows that nothing tells apart", len(rows), len(look.corpus))
    return Finding(
        "bare",
        "Responses that nothing tells apart",
        "act",
        f"{len(rows):,} of {len(look.corpus):,} rows have responses without scores, ranks or labels.",
        (share,),
        stake=share.value,
        why="No method learns a preference from them, and most refuse the whole file.",
        threshold="any",
        remedies=(Remedy("Leave them out, or give them scores.", look.commands.without("bare")),),
        specimens=look.specimens(rows),
        rows=rows,
    )


def ties(look: Look) -> Finding:
    rows = look.corpus.ties
    share = Measure.share("ties", len(rows), len(look.corpus))
    pairs = all(set(look.corpus.examples[row].roles) == {"chosen", "rejected"} for row in rows)
    learn = (Remedy("Learn from them too.", look.commands.train("todo")),) if pairs else ()
    return Finding(
        "ties",
        "Ties",
        level_of(share, look=0.02, act=1.1),
        f"{len(rows):,} of {len(look.corpus):,} rows prefer neither side. Methods for pairs leave "
        "them out, and so do the other checks.",
        (share,),
        stake=share.value / 2,
        why="A tie says that two responses are equally good, which a method for pairs cannot be told. "
        "Forced into pairs, ties are labels drawn by a coin.",
        papers=("Guo et al., 2024, arXiv 2411.02442",),
        threshold="2 % of the rows",
        remedies=(*learn, Remedy("Or leave them out for good.", look.commands.without("ties"))),
        specimens=look.specimens(rows),
        rows=rows,
    )
