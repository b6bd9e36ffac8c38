"""What a run leaves behind: its files, their types, its lock, and the sweeps that it belongs to."""
