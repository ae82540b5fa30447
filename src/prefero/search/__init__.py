"""Search: responses made step by step, with values to guide them."""
