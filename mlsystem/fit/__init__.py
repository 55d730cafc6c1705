"""One call of `fit`, `evaluate` or `predict`, from its arguments to its end."""
