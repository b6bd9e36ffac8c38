"""What autoregression does to a language model: repetition loops, entropy, and the decoding rules that change them."""
