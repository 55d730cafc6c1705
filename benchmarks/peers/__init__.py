"""The programs that are timed: mlsystem, and each peer as an expert in it would write it."""
