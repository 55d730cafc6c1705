"""Which model learns from which loss, and when. No tensors are computed here."""
