"""The one training loop. Only this folder computes gradients for training, steps the optimizer and writes checkpoints."""
