"""Several devices and processes: how they start, and which part of the work each of them does."""
