"""The logs: running means, metrics of members, and their names."""
