"""The output of a run: its files, their types, its lock, and the sweeps that it belongs to."""
