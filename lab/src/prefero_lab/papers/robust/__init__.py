"""Losses for noise, overfitting, displacement and more than plain labels: what their papers claim."""
