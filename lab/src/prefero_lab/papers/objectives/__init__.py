"""Objectives on pairs: what is compared with what, and through which link."""
