"""Exact solutions on finite sets of responses: what the objectives would reach with unlimited data."""
