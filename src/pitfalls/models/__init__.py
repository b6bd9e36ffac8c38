"""Causal language models of transformers behind one interface, `Trunk`. A model does not know the task."""
