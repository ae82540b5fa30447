"""The world of reviews with start models that are trained in a moment."""

from __future__ import annotations

from dataclasses import replace

from prefero.demo.reviews import REVIEWS
from prefero.demo.start import StartRecipe

SMALL = replace(
    REVIEWS,
    recipe=StartRecipe(hidden=16, layers=1, heads=2, intermediate=32, steps=3, batch=4, examples=40),
    max_new_tokens=12,
)
"""It has seen the words, and not learnt to write."""

WRITING = replace(SMALL, recipe=replace(SMALL.recipe, steps=40, batch=8, examples=200), max_new_tokens=40)
"""It has learnt to end its texts."""
