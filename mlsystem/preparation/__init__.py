"""Preparation before the first step: weights, optimizers, checks, a rehearsal."""
