"""From the outputs of a forward pass to `{loss name: scalar}`."""
