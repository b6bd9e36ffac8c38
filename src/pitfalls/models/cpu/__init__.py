"""Fast functions for CPUs; a test holds each to its slow reference."""
