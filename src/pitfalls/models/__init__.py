"""Causal language models of transformers behind one `Trunk`. A model does not know the task."""
