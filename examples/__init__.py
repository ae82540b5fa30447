"""Documented scripts on real preference data."""
