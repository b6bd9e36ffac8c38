"""The presets of `pitfalls.models.causal_lm` with small sizes: two blocks of width 20, which is the vocabulary of `task`."""

from dataclasses import replace

from pitfalls.schemas import CausalLMModelConfig
from tests.conftest import model_preset

DENSE = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 40}
SIZES = {
    "llama_tiny": DENSE,
    "qwen3_tiny": DENSE | {"head_dim": 10},
    "qwen3_next_tiny": DENSE
    | {"head_dim": 12, "layer_types": ["linear_attention", "full_attention"]}
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 10, "linear_value_head_dim": 10},
}
"""Small sizes by preset. The sizes of the preset that are not named here stay."""


def small_preset(name: str, **changes: object) -> CausalLMModelConfig:
    """Return a preset with small sizes, and fields that differ."""
    preset = model_preset(name)
    return replace(preset, **{"sizes": preset.sizes | SIZES[name]} | changes)
