"""Who learns from which loss, and when. Plain Python: names in, tables out."""
