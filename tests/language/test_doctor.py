"""The doctor finds the fault of each broken model, and no fault in healthy ones."""

import pytest
import torch
from transformers import (
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

from pitfalls.experiment.build import build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.language.doctor import CHECKS, Finding, examine
from pitfalls.schemas import ConfigError
from tests.language import broken_models

BROKEN = {
    broken_models.FutureLeak: {"causality", "prefix", "cache", "padding right"},
    broken_models.WrongPositionInCache: {"cache"},
    broken_models.ShiftedLabels: {"label shift"},
    broken_models.CacheNotGrown: {"cache", "cache growth"},
    broken_models.MaskIgnored: {"padding left"},
    broken_models.TiedWeightsLost: {"tied weights"},
}
"""Checks that each broken model fails."""
SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3, "eos_token_id": 0}
HEALTHY = {
    "gpt2": lambda: GPT2LMHeadModel(broken_models.config()),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(**SIZES, state_size=8)),
    "mamba2": lambda: Mamba2ForCausalLM(Mamba2Config(**SIZES, state_size=8, head_dim=16, num_heads=4, n_groups=1, chunk_size=8)),
}


def examined(lm):
    findings = examine(lm.eval(), torch.Generator().manual_seed(0))
    assert len(findings) == len(CHECKS)
    return {finding.check: finding for finding in findings}


def accused(lm):
    return {check for check, finding in examined(lm).items() if not finding.healthy}


@pytest.mark.parametrize("model", BROKEN, ids=lambda model: model.__name__)
def test_every_broken_model_is_caught_by_the_right_lines(model):
    """Guards against a wrong diagnosis: these lines and no others."""
    torch.manual_seed(0)
    assert accused(model(broken_models.config())) == BROKEN[model]


def test_dropout_is_caught_first():
    """Everything that is computed twice differs. The check that shows the cause comes first."""
    torch.manual_seed(0)
    found = examined(broken_models.DropoutLeftOn(broken_models.config()))
    assert next(check for check, finding in found.items() if not finding.healthy) == "determinism"


class NanAlone(GPT2LMHeadModel):
    """A model that gives NaN for the last row alone."""

    def forward(self, input_ids=None, position_ids=None, **others):
        output = super().forward(input_ids=input_ids, position_ids=position_ids, **others)
        if len(input_ids) == 1 and int(input_ids[0, 0]) == self.last:
            output.logits = output.logits * torch.nan
        return output


def test_a_nan_in_one_row_is_found():
    """Guards against a largest difference that ignores NaN."""
    torch.manual_seed(0)
    model = NanAlone(broken_models.config()).eval()
    seen = []
    model.last = -1
    handle = model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    assert "batch" not in accused(model)
    handle.remove()
    model.last = int(seen[0][-1, 0])
    assert "batch" in accused(model)


def test_a_models_own_settings_do_not_count():
    """Guards against checks that stop decoding early: here nearly every token would end the text."""
    torch.manual_seed(0)
    model = HEALTHY["gpt2"]()
    model.generation_config.eos_token_id = list(range(20, 97))
    assert accused(model) == set()
    assert len(model.generation_config.eos_token_id) == 77


def test_shifted_labels_are_named():
    """Guards against a label line without its note."""
    torch.manual_seed(0)
    assert "shifted by 0" in examined(broken_models.ShiftedLabels(broken_models.config()))["label shift"].note


@pytest.mark.parametrize("name", HEALTHY)
def test_no_healthy_model_is_accused(name):
    """Guards against false alarms: positions learned and rotary, grouped queries, recurrent states."""
    torch.manual_seed(0)
    assert accused(HEALTHY[name]()) == set()


@pytest.mark.parametrize("model", ["gpt_nano", "mamba_tiny", "mamba2_tiny"])
def test_our_trunks_are_healthy(model):
    """The smallest graph has the fewest positions. The Mambas use our own CPU functions."""
    cell = build(resolve(compose([f"model={model}", "task=g2_3", "task.n_values=20", "training.device=cpu"])))
    assert accused(cell.trunk.lm) == set()


def test_a_model_without_a_cache_is_healthy():
    """OpenAI's first GPT takes a cache, puts nothing into it and reads everything again."""
    torch.manual_seed(0)
    shape = {"vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    found = examined(OpenAIGPTLMHeadModel(OpenAIGPTConfig(**shape, **dropout)))
    assert [check for check, finding in found.items() if not finding.healthy] == []
    assert "puts nothing into its cache" in found["cache growth"].note


class NoLabels(GPT2LMHeadModel):
    """A model that cannot compute its own loss."""

    def forward(self, input_ids=None, position_ids=None, labels=None, **others):
        if labels is not None:
            raise RuntimeError("no\nloss here")
        return super().forward(input_ids=input_ids, position_ids=position_ids, **others)


def test_a_check_that_stops_costs_its_own_line():
    """Guards against the loss of the lines after it."""
    torch.manual_seed(0)
    found = examined(NoLabels(broken_models.config()))
    assert {check for check, finding in found.items() if not finding.healthy} == {"label shift"}
    assert found["label shift"].note == "no loss here"


def test_a_nan_is_not_healthy():
    """Guards against comparisons that are false in both directions."""
    assert not Finding("cache", "", float("nan")).healthy


def test_too_few_positions_are_told():
    """Guards against an index error in the place of one line."""
    config = broken_models.config()
    config.n_positions = 16
    with pytest.raises(ConfigError, match="has 16 positions, and the checks need 17; take a model with more"):
        examine(GPT2LMHeadModel(config).eval(), torch.Generator())


def test_the_script_examines_a_folder(tmp_path, run_script):
    """The folder is one that save_pretrained wrote."""
    GPT2LMHeadModel(broken_models.config()).save_pretrained(tmp_path)
    done = run_script("check_model", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["ok"] * len(CHECKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder; for a model on the hub, give --revision COMMIT"),
        (["someone/gpt", "--revision", "main"], "set model.revision to the full commit hash"),
    ],
)
def test_the_script_tells_bad_input_in_one_line(arguments, message, run_script):
    """Nothing is loaded, nothing is downloaded."""
    done = run_script("check_model", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
