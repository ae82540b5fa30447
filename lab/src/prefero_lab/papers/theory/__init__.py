"""Tables on which the optimum is known: what objectives reach, and what games come to."""
