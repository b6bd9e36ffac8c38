"""The one training loop: it alone calls backward, clips, steps, schedules and checkpoints."""
