"""World ``reviews``: short reviews whose worth is what they say, not how long or in which single words.

No word decides it: ``not bad`` is worth less than ``good``, ``avoid`` can be praise, what follows ``but``
counts double, and the mean over clauses is taken. A text outside the grammar loses a point, so a policy that
forgets how to write is seen to pay.
"""

from __future__ import annotations

from prefero.worlds.review_grammar import prompts, read_review, vocabulary, write_review
from prefero.worlds.text import TextWorld

REVIEWS = TextWorld(
    name="reviews",
    summary="Short reviews of things people tried; gold is the sentiment, minus one for broken grammar.",
    words=vocabulary(),
    prompts=prompts,
    write=write_review,
    gold=lambda prompt, text: read_review(prompt, text).score,
    measures={"valid": lambda prompt, text: float(read_review(prompt, text).valid)},
)
