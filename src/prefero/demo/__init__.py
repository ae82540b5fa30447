"""The demonstration: the world of written reviews, and the whole path from pairs to a report."""
