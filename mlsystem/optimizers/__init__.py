"""One optimizer for each model, and the one that Keras sees in their place."""
