"""A cache of keys and values with room for a known number of tokens: a new token is written, nothing before it is copied.

transformers' `DynamicLayer` copies what it holds at every token; its `StaticLayer` copies nothing, but has attention read the
room that is still empty, under a mask. The slow reference is the former; a test holds the two together.
"""

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer


class Room(DynamicLayer):
    """Keys and values of one block, of at most ``n_tokens`` tokens; not for gradients."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self._rooms: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the keys and values [B,H,T,C] of T more tokens, and return those of all.

        Raises:
            ValueError: there is no room for so many.
        """
        n_new, n_before = key_states.shape[2], self.get_seq_length()
        n_all = n_before + n_new
        if n_all > self.n_tokens:
            raise ValueError(f"the cache has room for {self.n_tokens} tokens, got {n_all}; make it with new_cache({n_all})")
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = [x.new_empty(*x.shape[:2], self.n_tokens, x.shape[3]) for x in (key_states, value_states)]
        for room, new in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, n_before:n_all] = new
        self.keys, self.values = (room[:, :, :n_all] for room in self._rooms)
        return self.keys, self.values


def make_room(cache: Cache, n_tokens: int) -> None:
    """Give an empty cache room where it would grow; states of recurrent blocks, and windows, are of one size."""
    cache.layers = [Room(n_tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]
