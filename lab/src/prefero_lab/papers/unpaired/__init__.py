"""Losses on single responses: what their papers claim."""
