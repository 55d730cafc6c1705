"""From what `fit` takes to batches."""
