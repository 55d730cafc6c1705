"""The steps on one batch: forward, losses, gradients, optimizers, metrics, logs."""
