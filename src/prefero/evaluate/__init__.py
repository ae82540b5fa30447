"""Measurements of models and of samples: win rates, divergences, ranking accuracy, diversity, calibration."""
