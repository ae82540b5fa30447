"""The reviews world with a start model that takes a moment: it has seen the words, not learnt to write."""

from __future__ import annotations

from dataclasses import replace

from prefero.demo.reviews import REVIEWS
from prefero.demo.start import StartRecipe

SMALL = replace(
    REVIEWS,
    recipe=StartRecipe(hidden=16, layers=1, heads=2, intermediate=32, steps=3, batch=4, examples=40),
    max_new_tokens=12,
)
