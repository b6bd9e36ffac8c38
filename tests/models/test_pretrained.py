"""Pretrained models: small ones are made here, saved in the hub's layout and loaded as real ones are."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from pitfalls.evaluation import decoding
from pitfalls.evaluation.score import evaluate
from pitfalls.experiment.build import build, load_run
from pitfalls.experiment.config import resolve, run_dir_of
from pitfalls.experiment.run import train_run
from pitfalls.models.trunk import Trunk
from pitfalls.results.kept import keep
from pitfalls.runs import run_folder
from pitfalls.schemas import Config, ConfigError, PretrainedModelConfig
from pitfalls.seeding import generator

WORDS = ["<s>", "</s>", *map(str, range(9)), "of", "and", "to", "in", "|", "/", "=", "$", "_", "#", "[", "]", ".", ";", "é"]
"""The tokenizer's words. There is no 9, so node value 9 has to use a word."""
V, EXTRA = len(WORDS), 3
"""Number of tokens of the tokenizer, and number of further rows of the embedding."""
KINDS = ["gpt2", "pythia", "llama", "mamba"]


@pytest.fixture
def saved(save_lm: Callable[..., Path]) -> Callable[[str], Path]:
    """A function that saves a tiny model with these words and returns its folder."""
    return lambda kind: save_lm(kind, WORDS, V + EXTRA, 48)


def model_config(folder: Path | str, **changes: object) -> PretrainedModelConfig:
    data = {
        "name": "mine",
        "architecture": "pretrained",
        "init_from": None,
        "source": str(folder),
        "revision": None,
        "dtype": "original",
        "new_tokens": False,
    } | changes
    return PretrainedModelConfig(**data)


@pytest.fixture
def run_config(config: Config) -> Callable[..., Config]:
    """A function that returns the config of a run on G(2,3), N=10, from a pretrained model."""

    def make(folder: Path | str, **changes: object) -> Config:
        task = replace(config.task, path_length=3)
        return replace(config, task=task, model=model_config(folder, **changes))

    return make


# ------------------------------------------------------------------ the same model, other ids


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_the_models_own_under_the_mapping(saved, run_config, kind: str):
    """Guards against a mapping of inputs or outputs only, and a lost token: the softmax is over the whole vocabulary."""
    folder = saved(kind)
    cell = build(run_config(folder))
    stock = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=None if kind == "mamba" else "eager").eval()
    mapping = [token.id for token in cell.objective.spec.vocabulary.model_tokens]
    assert len(mapping) == len(set(mapping)) == cell.task.vocabulary.size
    prompt = cell.task.sample(4, generator(0, "data")).prompt
    trunk = cell.trunk.eval()
    with torch.no_grad():
        ours = trunk.logits(trunk(prompt).normed)
        theirs = stock(torch.tensor(mapping)[prompt], use_cache=False).logits
    assert ours.shape[-1] == V + EXTRA
    assert_close(ours[..., : len(mapping)], theirs[..., mapping], atol=1e-5, rtol=1e-4)
    assert_close(ours.sort(-1).values, theirs.sort(-1).values, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoding_equals_uncached(saved, run_config, kind: str):
    """Guards against errors of grouped-query attention and rotary positions with a cache."""
    cell = build(run_config(saved(kind)))
    trunk, prompt = cell.trunk.eval(), cell.task.sample(16, generator(0, "data")).prompt
    fast = decoding.autoregressive(trunk, cell.objective, prompt, 6)
    assert torch.equal(fast, decoding.autoregressive_uncached(trunk, cell.objective, prompt, 6))
    cache, sequence = trunk.new_cache(), torch.cat([prompt, prompt[:, :6]], 1)
    for n in range(prompt.shape[1], sequence.shape[1]):  # sharper than tokens, which a random model repeats
        new = sequence[:, :n] if n == prompt.shape[1] else sequence[:, n - 1 : n]
        cached, full = (cell.objective.step_logits(trunk, *args) for args in ((new, cache), (sequence[:, :n], None)))
        assert_close(cached, full, atol=1e-4, rtol=1e-4)


def test_an_answer_outside_the_task_is_a_broken_walk(saved, run_config):
    """Guards against an index error, and a token far outside that passes for an edge."""
    cell = build(run_config(saved("gpt2")))
    batch = cell.task.sample(8, generator(0, "data"))
    with torch.no_grad():  # the model always predicts a token that means nothing in the task
        cell.trunk.lm.lm_head.weight.zero_()
        cell.trunk.lm.lm_head.weight[V + EXTRA - 1] = 1.0
        cell.trunk.lm.transformer.ln_f.bias.fill_(1.0)
        cell.trunk.lm.transformer.ln_f.weight.zero_()
    result = evaluate(cell.trunk, cell.objective, cell.task, batch)
    assert result.broken_walk.k == 8
    assert cell.task.vocabulary.text([V + EXTRA - 1]) == "<?>"


def test_a_run_trains_every_weight_and_records_the_mapping(saved, run_config):
    """Guards against frozen weights and a wrong mapping in a whole run: trained, recorded, read back from its folder."""
    config = run_config(saved("gpt2"))
    record = train_run(config, make_display=lambda _: [])
    assert record.model_tokens["7"] == (WORDS.index("7"), "7")
    assert record.model_tokens["9"] == (WORDS.index("of"), "of")
    assert record.model_tokens["<dummy>"] == (WORDS.index("$"), "$")
    run_dir = Path(config.runs_dir) / record.run
    before, after = build(resolve(config)).trunk, load_run(run_dir).trunk
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_dropout_is_off_in_training(saved, run_config, kind: str):
    """Guards against numbers that depend on a global generator, and dropout for an attention that has none."""
    folder = saved(kind)
    saved_config = json.loads((folder / "config.json").read_text())
    saved_config |= {"attention_dropout": 0.5, "attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5}
    (folder / "config.json").write_text(json.dumps(saved_config))
    cell = build(run_config(folder))
    prompt = cell.task.sample(4, generator(0, "data")).prompt
    trained, read = cell.trunk.train()(prompt).normed, cell.trunk.eval()(prompt).normed
    assert torch.equal(trained, read)


def test_precision_of_the_weights(saved, run_config):
    folder = saved("gpt2")
    for dtype, expected in (("original", torch.float32), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        cell = build(run_config(folder, dtype=dtype))
        assert {p.dtype for p in cell.trunk.parameters()} == {expected}
        loss = cell.objective.training_loss(
            cell.trunk, cell.task.sample(4, generator(0, "data")), step=0, generator=generator(0, "objective")
        )
        assert loss.total.isfinite()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])  # tied and untied embeddings
def test_new_tokens_are_appended_and_drawn_from_the_seed(saved, run_config, kind: str):
    """Guards against embeddings from the global generator, and old tokens that change."""
    folder = saved(kind)
    cells = [build(replace(run_config(folder, new_tokens=True), seed=seed)) for seed in (0, 0, 1)]
    first, again, other = (cell.trunk.lm.get_input_embeddings().weight for cell in cells)
    n_task = cells[0].task.vocabulary.size
    assert first.shape[0] == V + EXTRA + n_task
    assert torch.equal(first, again)
    assert torch.equal(first[: V + EXTRA], other[: V + EXTRA])
    assert not torch.equal(first[V + EXTRA :], other[V + EXTRA :])
    assert first[V + EXTRA :].std().item() == pytest.approx(first[: V + EXTRA].std().item(), rel=0.3)
    assert torch.equal(cells[0].trunk.embed(torch.arange(n_task)[None])[0], first[V + EXTRA :])
    assert cells[0].objective.spec.vocabulary.model_tokens is None


def test_embeddings_are_not_resized_unless_asked(saved, run_config):
    assert build(run_config(saved("gpt2"))).trunk.lm.get_input_embeddings().weight.shape[0] == V + EXTRA


# ------------------------------------------------------------------ identity


def test_a_folder_is_known_by_its_files(saved, run_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against "is finished" with old numbers after the weights were replaced, and one folder under three names."""
    folder = saved("gpt2")
    monkeypatch.chdir(folder.parent)
    spelled = [folder, f"{folder}/../{folder.name}", f"./{folder.name}/"]
    names = {run_dir_of(resolve(run_config(source))).name for source in spelled}
    assert len(names) == 1
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert run_dir_of(resolve(run_config(copy))).name in names
    tensors = load_file(copy / "model.safetensors")
    tensors["transformer.ln_f.bias"] += 1e-3
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert run_dir_of(resolve(run_config(copy))).name not in names
    assert run_dir_of(resolve(run_config(folder))).name in names


def test_a_run_whose_model_has_changed_or_moved_says_so(saved, run_config):
    """Guards against a run that is read back with the tokenizer or the sizes of another model."""
    folder = saved("gpt2")
    config = run_config(folder)
    run_dir = Path(config.runs_dir) / train_run(resolve(config), make_display=lambda _: []).run
    assert load_run(run_dir).config.model.revision.startswith("sha256:")
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(ConfigError, match=r"no such folder; give the folder of the model"):
        load_run(run_dir)
    moved.rename(folder)
    (folder / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text() + " ")
    with pytest.raises(ConfigError, match="its files have changed since this run was started"):
        load_run(run_dir)


def test_a_kept_record_names_no_folder_of_this_machine(saved, run_config, tmp_path: Path):
    config = run_config(saved("gpt2"))
    record = train_run(resolve(config), make_display=lambda _: [])
    keep(Path(config.runs_dir) / record.run, tmp_path / "kept.json")
    assert str(tmp_path.parent) not in (tmp_path / "kept.json").read_text()


def test_a_run_to_start_from_has_its_own_name(saved, run_config, config: Config, tmp_path: Path):
    """Guards against an identity by the name of a folder, into which another run may be copied."""
    first = train_run(resolve(replace(config, seed=5)), make_display=lambda _: [])
    copy = tmp_path / "mine"
    shutil.copytree(Path(config.runs_dir) / first.run, copy)
    changed = replace(config, model=replace(config.model, init_from=str(copy)))
    with pytest.raises(ConfigError, match=rf"mine: its record is that of the run {first.run}; give the folder that name"):
        resolve(changed)
    own = copy.rename(copy.with_name(first.run))
    assert resolve(replace(changed, model=replace(changed.model, init_from=str(own))))


# ------------------------------------------------------------------ what is refused


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(saved, run_config):
    """Guards against an IndexError in the first forward pass."""
    folder = saved("gpt2")
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][: V - 8].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"vocab_size": V - 8}))
    with pytest.raises(ConfigError, match=rf"its tokenizer has a token \d+, and the model has embeddings of {V - 8} tokens"):
        build(run_config(folder))


def test_new_tokens_need_more_than_one_old_one(saved, run_config):
    """Guards against embeddings of NaN: one row has no spread."""
    folder = saved("gpt2")
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][:1].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {"vocab_size": 1}))
    with pytest.raises(ConfigError, match="model.new_tokens=true: the model has one embedding"):
        build(run_config(folder, new_tokens=True))


def test_a_tokenizer_with_too_few_tokens_is_refused(saved, run_config):
    config = run_config(saved("gpt2"))
    with pytest.raises(ConfigError, match=r"single tokens for 23 of 40 .*lower task.n_values=30 or set model.new_tokens=true"):
        build(replace(config, task=replace(config.task, n_values=30)))


def test_a_model_that_is_too_short_is_refused(saved, run_config, config: Config):
    long = replace(run_config(saved("gpt2")), task=replace(config.task, degree=2, path_length=6, n_values=11))
    with pytest.raises(ConfigError, match=r"reads 48 positions and the task needs 59; take a smaller graph"):
        build(long)


@pytest.mark.parametrize("revision", [None, "main", "607a30d"])
def test_a_hub_model_needs_its_commit(revision: str | None):
    """Guards against numbers that change when somebody pushes to a branch."""
    with pytest.raises(ConfigError, match=r"model.revision=.*openai-community/gpt2 is no folder here.*full commit hash"):
        model_config("openai-community/gpt2", revision=revision)


def test_a_local_folder_has_no_revision(saved):
    with pytest.raises(ConfigError, match=r"has no revision, for it is not taken from the hub; set model.revision=null"):
        model_config(saved("gpt2"), revision="0" * 40)


def test_an_unknown_model_id_is_one_line(run_config, monkeypatch):
    """Guards against a message that depends on the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError) as error:
        build(run_config("nobody/no-such-model", revision="0" * 40))
    assert "\n" not in str(error.value)
    assert "model.source=nobody/no-such-model at 000" in str(error.value)
    assert "a folder that save_pretrained wrote" in str(error.value)


def test_a_folder_without_a_model_is_one_line(run_config, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"model.source=.*give a .*that save_pretrained wrote"):
        build(run_config(tmp_path))


def test_pickled_weights_are_not_loaded(saved, run_config):
    """Guards against code that a weight file from elsewhere would run."""
    folder = saved("gpt2")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        build(run_config(folder))


def test_a_model_that_brings_its_own_code_is_not_run(saved, run_config):
    """Guards against trust_remote_code: the file would leave a mark."""
    folder = saved("gpt2")
    mark = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = (folder / "config.json").read_text().replace('"gpt2"', '"other"', 1)
    entry = '{"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},'
    (folder / "config.json").write_text(config.replace("{", entry, 1))
    with pytest.raises(ConfigError, match="model.source="):
        build(run_config(folder))
    assert not mark.exists()


# ------------------------------------------------------------------ from another run


def test_a_run_starts_from_another_runs_trunk(config: Config):
    first = train_run(config, make_display=lambda _: [])
    source = Path(config.runs_dir) / first.run
    second = replace(config, model=replace(config.model, init_from=str(source)))
    started, ended = build(resolve(second)).trunk, load_run(source).trunk
    assert all(torch.equal(a, b) for a, b in zip(started.parameters(), ended.parameters(), strict=True))
    assert run_folder.run_name(asdict(second)) != first.run


def changed(config: Config, init_from: Path) -> Config:
    return replace(config, model=replace(config.model, init_from=str(init_from)))


def test_init_from_needs_a_finished_run_of_the_same_shape(config: Config, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"model.init_from=.*nowhere: it has no checkpoint, or is no finished run"):
        build(changed(config, tmp_path / "nowhere"))
    source = Path(config.runs_dir) / train_run(config, make_display=lambda _: []).run
    wider = replace(config, model=replace(config.model, width=32))
    with pytest.raises(ConfigError, match=r"model.init_from=.*does not fit Trunk: .*in the file, .* in the model"):
        build(changed(wider, source))
    (source / run_folder.RECORD).unlink()
    with pytest.raises(ConfigError, match="it has no checkpoint, or is no finished run"):
        build(changed(config, source))


def test_a_trunk_knows_its_own_family(saved, run_config):
    mamba = build(run_config(saved("mamba"))).trunk
    assert mamba.recurrent
    marked = {name.split(".")[-1] for name, p in mamba.named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert marked == {"A_log", "D"}, "weight decay would pull pretrained decay rates to 1"
    cell = build(run_config(saved("llama")))
    assert not cell.trunk.recurrent
    assert isinstance(cell.trunk, Trunk)
    assert (cell.trunk.width, cell.trunk.n_layers, cell.trunk.n_heads) == (16, 2, 4)
