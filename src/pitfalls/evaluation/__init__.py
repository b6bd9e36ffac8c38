"""Decoding of answers from a model, and their scores."""
