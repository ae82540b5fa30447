"""Measurements of models and of samples: win rates, divergences, frontiers, ranking accuracy."""
