"""Learning-rate schedules as pure functions of the step."""

import math


def lr_factor(
    step: int, *, n_steps: int, warmup_steps: int, schedule: str, decay_steps: int | None, final_lr_fraction: float
) -> float:
    """Return the learning rate of a step as a fraction of its peak.

    The warm-up is linear, from 1/warmup_steps at step 0 to 1 at step warmup_steps - 1. The peak follows, and then a decay over
    the last ``decay_steps`` steps, which reaches ``final_lr_fraction`` at step n_steps - 1.

    Args:
        step: optimizer steps taken so far: 0 for the first step.
        n_steps: optimizer steps of the run, not samples. The published code counts samples here, so its cosine never bends.
        warmup_steps: steps of the warm-up.
        schedule: "constant", "linear" or "cosine".
        decay_steps: steps of the decay. None means all steps after the warm-up.
        final_lr_fraction: fraction of the peak at which a decay ends.

    Raises:
        ValueError: the schedule is unknown.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    decay = n_steps - warmup_steps if decay_steps is None else decay_steps
    progress = min(1.0, max(0.0, (step + 1 - (n_steps - decay)) / decay))
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1.0 - (1.0 - final_lr_fraction) * progress
    if schedule == "cosine":
        return final_lr_fraction + (1.0 - final_lr_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress))
    raise ValueError(f"schedule={schedule}: choose one of constant, linear, cosine")
