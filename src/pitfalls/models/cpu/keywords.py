"""Keywords that transformers gives to a kernel, and that the kernel does not know: refused unless they mean nothing."""

from collections.abc import Collection, Mapping

ATTENTION_INERT = (
    "position_ids",
    "cache_position",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
)
"""Keywords that every attention function gets and that say nothing about its weights."""


def refuse_keywords(kernel: str, given: Mapping[str, object], inert: Collection[str] = ()) -> None:
    """Raise an error if a keyword that a kernel does not know asks for something.

    Args:
        kernel: the name of the kernel, for the message.
        given: the keywords that it does not know, with their values.
        inert: names that change no number, whatever their value.

    Raises:
        NotImplementedError: a keyword is not None and is not inert, such as a cap of the scores or a packed sequence.
    """
    asked = {name: value for name, value in given.items() if value is not None and name not in inert}
    if asked:
        shown = ", ".join(f"{name}={value}" if isinstance(value, int | float | str) else name for name, value in asked.items())
        raise NotImplementedError(f"the {kernel} on a CPU has no {shown}; leave it out, or use attn_implementation='eager'")


def refuse_short_window(kernel: str, sliding_window: int | None, n_keys: int) -> None:
    """Raise an error if a query may not see all keys.

    Raises:
        NotImplementedError: the window is shorter than the number of keys.
    """
    if sliding_window is not None and sliding_window < n_keys:
        raise NotImplementedError(f"the {kernel} on a CPU has no sliding_window={sliding_window} for {n_keys} tokens")
