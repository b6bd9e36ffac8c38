"""Private names of transformers: each is there in the installed version, and no other file uses one.

A failure names the missing name and the file to mend.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
import transformers
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from transformers import (
    Cache,
    DynamicCache,
    DynamicLayer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "src/pitfalls/models"
INTERNALS = MODELS / "hf_internals.py"
OTHERS = [p for folder in ("src", "benchmarks", "scripts") for p in (ROOT / folder).rglob("*.py") if p != INTERNALS]
CLASSES = (PreTrainedModel, PreTrainedConfig, GenerationConfig, Cache, DynamicLayer)
"""The classes of transformers whose objects this package handles."""


def broken(name: str, path: Path) -> str:
    return f"transformers {transformers.__version__} has no {name} (any more): mend {path.relative_to(ROOT)}"


# ------------------------------------------------------------------ names that are imported


def imports(path: Path) -> set[tuple[str, str]]:
    """Each name that a file imports from transformers, with its module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {(node.module or "", alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
    return {(module, name) for module, name in found if module.split(".")[0] == "transformers"}


@pytest.mark.parametrize(("module", "name"), sorted(imports(INTERNALS)), ids=lambda text: text.split(".")[-1])
def test_imported_name_is_there(module: str, name: str):
    try:
        importlib.import_module(f"{module}.{name}")
    except ImportError:
        assert hasattr(importlib.import_module(module), name), broken(f"{module}.{name}", INTERNALS)


def test_submodules_are_imported_in_one_file():
    """Guards against private parts all over the package: eight files leaned on them, and pyproject.toml named one."""
    assert {module for module, _ in imports(INTERNALS)} > {"transformers"}, "nothing private is left to import"
    for path in OTHERS:
        inside = {module for module, _ in imports(path)} - {"transformers"}
        assert not inside, f"{path.relative_to(ROOT)} imports {inside}; only {INTERNALS.name} may import a submodule"


# ------------------------------------------------------------------ attributes


def private_attributes(path: Path) -> set[str]:
    """Attributes of a file that start with one underscore, also as a text given to getattr, and are not read from self."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "attrgetter"):
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return {name for name in found if isinstance(name, str) and re.match(r"_[a-z]", name)}


def known_to(name: str, classes: tuple[type, ...]) -> bool:
    return any(hasattr(kind, name) for kind in classes)


def test_private_attribute_is_there():
    names = private_attributes(INTERNALS)
    assert names == {"_is_stateful", "_attn_implementation", "_supports_attention_backend", "_supports_sdpa"}, (
        "say in this test what the new one is"
    )
    for name in names:
        assert known_to(name, CLASSES), broken(f"attribute {name} of models or their configs", INTERNALS)


def test_private_attributes_are_read_in_one_file():
    for path in OTHERS:
        private = {name for name in private_attributes(path) if known_to(name, CLASSES)}
        assert not private, f"{path.relative_to(ROOT)} reads {private} of transformers; only {INTERNALS.name} may read it"


def attributes(path: Path, function: str, variable: str) -> list[str]:
    """The attributes of ``variable`` that a function reads, and the functions of its file that get the variable from it."""
    functions = {node.name: node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    called = {
        node.func.id
        for node in ast.walk(functions[function])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and variable in map(ast.unparse, node.args)
    }
    bodies = [functions[name] for name in (function, *sorted(called & functions.keys()))]
    reads = [node for body in bodies for node in ast.walk(body) if isinstance(node, ast.Attribute)]
    return sorted({node.attr for node in reads if isinstance(node.value, ast.Name) and node.value.id == variable})


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=5, n_positions=4, n_embd=4, n_layer=1, n_head=2))


def mamba() -> MambaForCausalLM:
    return MambaForCausalLM(MambaConfig(vocab_size=5, hidden_size=4, num_hidden_layers=1, state_size=2))


def mamba2() -> Mamba2ForCausalLM:
    sizes = {"hidden_size": 4, "num_heads": 4, "head_dim": 2, "n_groups": 1, "state_size": 2}
    return Mamba2ForCausalLM(Mamba2Config(vocab_size=5, num_hidden_layers=1, **sizes))


MAMBA_FILE = MODELS / "cpu/last_mamba_block.py"
PARTS = {
    "block of GPT-2": (lambda: gpt2().transformer.h[0], INTERNALS, "gpt2_block_from", "block", 4),
    "attention of GPT-2": (lambda: gpt2().transformer.h[0].attn, INTERNALS, "gpt2_block_from", "attention", 11),
    "block of Mamba": (lambda: mamba().backbone.layers[0], MAMBA_FILE, "mamba_from", "block", 3),
    "mixer of Mamba": (lambda: mamba().backbone.layers[0].mixer, MAMBA_FILE, "mamba_from", "mixer", 11),
    "block of Mamba-2": (lambda: mamba2().backbone.layers[0], MAMBA_FILE, "mamba2_from", "block", 3),
    "mixer of Mamba-2": (lambda: mamba2().backbone.layers[0].mixer, MAMBA_FILE, "mamba2_from", "mixer", 15),
}
"""Objects that the shortened last blocks read, each with the reading function, its name there, and the number of attributes."""


@pytest.mark.parametrize("part", PARTS)
def test_layers_of_the_last_block_have_the_names_that_are_read(part: str):
    build, path, function, variable, n_read = PARTS[part]
    read, there = attributes(path, function, variable), build()
    assert len(read) >= n_read, f"this test finds too few reads in {path.name}: {read}"
    for name in read:
        assert hasattr(there, name), broken(f"{name} in the {part}", path)


def test_a_block_is_called_as_the_replaced_forward_expects():
    """Guards against a cache that is passed under another name or in another place, and would be silently left out."""
    expected = {gpt2: ["hidden_states", "past_key_values"], mamba: ["hidden_states"], mamba2: ["hidden_states"]}
    for build, names in expected.items():
        blocks = next(m for m in build().base_model.children() if isinstance(m, torch.nn.ModuleList))
        parameters = list(inspect.signature(type(blocks[0]).forward).parameters)
        assert parameters[1 : 1 + len(names)] == names, broken(f"block called with {names} first", INTERNALS)


@pytest.mark.parametrize("name", ["lazy_initialization", "is_initialized", "keys", "values", "get_seq_length", "update"])
def test_cache_layer_has_what_the_preallocated_one_uses(name: str):
    cache = DynamicCache(config=gpt2().config)
    assert [type(layer) for layer in cache.layers] == [DynamicLayer], broken("list Cache.layers of DynamicLayer", INTERNALS)
    assert hasattr(cache.layers[0], name), broken(f"DynamicLayer.{name}", INTERNALS)


def test_attention_interface_has_what_is_called():
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    assert hasattr(ALL_ATTENTION_FUNCTIONS, "get_interface"), broken("ALL_ATTENTION_FUNCTIONS.get_interface", INTERNALS)


def test_a_missing_name_would_be_reported(monkeypatch):
    """Guards against a test that finds nothing: a layer that transformers renames is named with the file."""
    block = gpt2().transformer.h[0]
    block.norm_1 = block.ln_1
    del block.ln_1
    monkeypatch.setitem(PARTS, "block of GPT-2", (lambda: block, *PARTS["block of GPT-2"][1:]))
    with pytest.raises(AssertionError, match=r"has no ln_1 in the block of GPT-2 .*mend src/pitfalls/models/hf_internals.py"):
        test_layers_of_the_last_block_have_the_names_that_are_read("block of GPT-2")


# ------------------------------------------------------------------ the parts of a model


@pytest.mark.parametrize("build", [gpt2, mamba, mamba2])
def test_the_parts_of_a_model_are_found(build):
    from pitfalls.models import hf_internals

    lm = build()
    assert len(hf_internals.blocks(lm)) == lm.config.num_hidden_layers == 1
    assert hf_internals.final_norm(lm).weight.shape == (4,)
    assert hf_internals.is_stateful(lm) is (build is not gpt2)
    assert len(hf_internals.attention_modules(lm)) == (build is gpt2)
    if build is gpt2:
        (block,) = lm.transformer.h
        assert (hf_internals.attention_modules(lm), hf_internals.mlp_modules(lm)) == ([block.attn], [block.mlp])


def test_the_attention_is_the_former_one_again_after_an_error():
    from pitfalls.models import hf_internals

    lm = gpt2()
    before = hf_internals.attention_name(lm)
    within = []
    with pytest.raises(ZeroDivisionError), hf_internals.attention_set_to(lm, "eager"):
        within.append(hf_internals.attention_name(lm)) or 1 / 0
    assert within == ["eager"] != [before]
    assert hf_internals.attention_name(lm) == before


# ------------------------------------------------------------------ versions


def test_the_tested_versions_are_those_that_are_allowed_and_pinned():
    """Guards against a range of versions that nobody has tested."""
    from pitfalls.models.hf_internals import TESTED_VERSIONS

    oldest, newest = TESTED_VERSIONS
    declared = re.search(r'"transformers([^"]*)"', (ROOT / "pyproject.toml").read_text())
    assert declared
    lowest = [limit.version for limit in SpecifierSet(declared[1]) if limit.operator == ">="]
    assert [Version(version) for version in lowest] == [Version(oldest)]
    assert newest in SpecifierSet(declared[1])
    for name in ("constraints.txt", "constraints-cuda.txt"):
        assert f"\ntransformers=={newest}\n" in (ROOT / name).read_text()
