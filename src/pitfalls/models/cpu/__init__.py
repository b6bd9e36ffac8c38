"""Fast functions for CPUs. Each file names the slow reference and the test that compares the two."""
