"""Code for any causal language model: decoding rules, the doctor, and the degeneration lab with its tables."""
