"""Seven broken models. Each has one fault that occurs in practice."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel


def config() -> GPT2Config:
    """Return the config of a tiny GPT-2, with weights that are large enough to show the faults."""
    return GPT2Config(
        vocab_size=97,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="eager",
    )


# `generate` makes positions from the mask for models whose `forward` names position_ids, so each of these does


class FutureLeak(GPT2LMHeadModel):
    """A model whose embeddings contain a little of the next one."""

    def forward(self, input_ids=None, position_ids=None, **others):
        embedded = self.transformer.wte(input_ids)
        following = torch.cat([embedded[:, 1:], torch.zeros_like(embedded[:, :1])], 1)
        return super().forward(inputs_embeds=embedded + 0.1 * following, position_ids=position_ids, **others)


class WrongPositionInCache(GPT2LMHeadModel):
    """A model whose positions are one too large with a cache."""

    def forward(self, input_ids=None, past_key_values=None, position_ids=None, **others):
        if past_key_values is not None and past_key_values.get_seq_length():
            position_ids = position_ids + 1
        return super().forward(input_ids=input_ids, past_key_values=past_key_values, position_ids=position_ids, **others)


class ShiftedLabels(GPT2LMHeadModel):
    """A model that does not shift the labels, because it expects shifted ones."""

    def forward(self, input_ids=None, position_ids=None, labels=None, **others):
        output = super().forward(input_ids=input_ids, position_ids=position_ids, **others)
        if labels is not None:
            output.loss = F.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
        return output


class CacheNotGrown(GPT2LMHeadModel):
    """A model that forgets decoded tokens, because the cache keeps only the prompt."""

    def forward(self, input_ids=None, past_key_values=None, position_ids=None, **others):
        held = past_key_values
        if held is not None and held.get_seq_length():
            past_key_values = copy.deepcopy(held)
        output = super().forward(input_ids=input_ids, past_key_values=past_key_values, position_ids=position_ids, **others)
        output.past_key_values = held if held is not None else output.past_key_values
        return output


class MaskIgnored(GPT2LMHeadModel):
    """A model that ignores the attention mask."""

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, **others):
        return super().forward(input_ids=input_ids, position_ids=position_ids, **others)


class DropoutLeftOn(GPT2LMHeadModel):
    """A dropout layer that is also active outside of training."""

    def __init__(self, config):
        super().__init__(config)
        self.transformer.drop = AlwaysDropout()


class AlwaysDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.1, training=True)


class TiedWeightsLost(GPT2LMHeadModel):
    """A model whose unembedding is a matrix of its own, although the config ties it to the embedding."""

    def __init__(self, config):
        super().__init__(config)
        self.lm_head.weight = nn.Parameter(self.lm_head.weight.detach() + 0.01)
