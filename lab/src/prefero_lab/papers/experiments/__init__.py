"""Experiments of the survey: what is made, trained and measured, for a paper or a few of them."""
