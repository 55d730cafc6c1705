"""What happens to one batch: forward, losses, gradients, optimizers, logs."""
