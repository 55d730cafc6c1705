"""Data sets, streams and transforms: from the arguments of `fit` to batches."""
