"""Commands that the laboratory adds to ``prefero``."""
