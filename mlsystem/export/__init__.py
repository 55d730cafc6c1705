"""Exported files: every member of a system in a format that other programs run."""
