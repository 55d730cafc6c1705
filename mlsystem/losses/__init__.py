"""Compute the losses of a forward pass as named scalars."""
