"""Hugging Face causal language models behind one `Trunk`; a model does not know what a graph is."""
