"""mlsystem beside its peers: the same networks, data, batch size and optimizer, run in turns."""
