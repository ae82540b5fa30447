"""Checks of preference data before a model is trained on them; each gives a number, its reason and a
remedy."""
