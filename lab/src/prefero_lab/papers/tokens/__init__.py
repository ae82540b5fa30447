"""Losses on tokens, segments and turns, and about length: what their papers claim."""
