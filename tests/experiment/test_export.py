"""An exported run answers as the run does, in a Python that has no pitfalls."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import pitfalls
from pitfalls.evaluation.decoding import decode
from pitfalls.experiment.build import Run, build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.official_format import write_lines
from pitfalls.tasks.vocabulary import SPECIALS
from tests.longer_view import Twice
from tests.tiny_runs import TINY

GPT = ["model.weight_init_std=0.5"]
MAMBAS = ["model.width=32", "model.n_layers=2", "model.embedding_init_std=0.2", "model.projection_init_gain=4"]
N = 32
BLOCKED = """
import importlib.abc, json, re, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pitfalls":
            raise ImportError("blocked")

sys.meta_path.insert(0, Block())
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)

printed = {}
for folder in sys.argv[1:]:
    code = re.search(r"```python\\n(.*?)```", open(folder + "/README.md").read(), re.S)[1].replace("FOLDER", folder)
    said = []
    space = {"print": said.append}
    exec(code, space)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(space["prompt"].input_ids).logits
    printed[folder] = [said[0], space["prompt"].input_ids[0].tolist(), logits[0, -1].tolist()]
assert not any(name.startswith("pitfalls") for name in sys.modules)
print(json.dumps(printed))
"""


def make_run(*overrides: str) -> Run:
    tiny = [text for text in TINY if not text.startswith("model")]
    run = build(resolve(compose([*tiny, "model=gpt_nano", *overrides])))
    run.trunk.eval()
    return run


def graphs_of(run: Run) -> Batch:
    return run.task.sample(N, generator(3, "test"))


def lines_of(run: Run, graphs: Batch) -> list[str]:
    return write_lines(run.task, graphs).decode().splitlines(keepends=True)


@pytest.fixture
def reload(tmp_path: Path):
    """Export a run, and load the folder again as transformers does."""

    def export_and_load(run: Run) -> tuple:
        folder = pitfalls.export(run, tmp_path / "exported")
        assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".md"}
        return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    return export_and_load


@pytest.fixture(params=["llama", "pythia", "gpt2"])
def pretrained(request: pytest.FixtureRequest, save_lm) -> Run:
    """A pretrained model whose tokens of the task are spread over its vocabulary."""
    words = ["<s>", "</s>", *(f"word{chr(97 + i)}" for i in range(20)), *map(str, range(19, -1, -1)), "=", "|", "/"]
    source = save_lm(request.param, words, len(words), 64)
    return make_run("model=smollm2", "model.name=tiny", f"model.source={source}", "model.dtype=fp32")


# ------------------------------------------------------------------ the tokenizer


def test_the_tokenizer_reads_official_lines_as_the_tasks_tokens(reload):
    """Guards against ids that moved by one, commas that became tokens, and lines whose ending did."""
    run = make_run()
    graphs, (_, tokenizer) = graphs_of(run), reload(run)
    lines = lines_of(run, graphs)
    whole = torch.cat([graphs.prompt, graphs.target], 1)
    assert tokenizer(lines).input_ids == whole.tolist()
    prompts = [line[: line.index("=") + 1] for line in lines]
    assert torch.equal(tokenizer(prompts, return_tensors="pt").input_ids, graphs.prompt)


def test_decoded_tokens_have_the_official_form(reload):
    """Guards against text in another form than the authors' files: decoding is the inverse of encoding."""
    run = make_run()
    graphs, (_, tokenizer) = graphs_of(run), reload(run)
    lines = lines_of(run, graphs)
    assert [f"{text}\n" for text in tokenizer.batch_decode(torch.cat([graphs.prompt, graphs.target], 1))] == lines
    assert tokenizer.batch_decode(graphs.target) == [line.strip().split("=")[1] for line in lines]


def test_the_tokenizer_knows_every_symbol(reload):
    """Guards against a tokenizer that splits </T> at its /."""
    run = make_run()
    _, tokenizer = reload(run)
    assert tokenizer("".join(SPECIALS)).input_ids == [run.task.vocabulary.id(symbol) for symbol in SPECIALS]
    assert len(tokenizer) == run.task.vocabulary.size


@pytest.mark.parametrize("text", ["1,20|", "01,2", "a", "1;2", "-1"])
def test_what_is_no_node_value_is_an_error(reload, text: str):
    """Guards against an unknown token that is read as some node."""
    _, tokenizer = reload(make_run())
    with pytest.raises(Exception, match="WordLevel error"):
        tokenizer(text)


# ------------------------------------------------------------------ weights and answers

GENERATING = {
    "next_token": GPT,
    "reversed": [*GPT, "objective=reversed"],
    "heads": [*GPT, "objective=multi_token"],
    "fixed_size": [*GPT, "objective=mutor"],
    "mamba": ["model=mamba_tiny", *MAMBAS],
    "llama": ["model=llama_tiny", *GPT],
    "hybrid": ["model=qwen3_next_tiny", *GPT],
    "convolutions": ["model=gpt_conv", "model.n_layers=2", *GPT],
    "convolutions_without_positions": ["model=gpt_conv_nope", "model.n_layers=2", *GPT],
}


@pytest.mark.parametrize("kind", GENERATING)
def test_generate_answers_as_the_run(reload, kind: str):
    """Guards against weights that were not saved, another activation, and an end token that cuts answers short."""
    run = make_run(*GENERATING[kind])
    _check(run, *reload(run))


def test_a_pretrained_model_keeps_its_ids(reload, pretrained: Run):
    """Guards against a tokenizer with the task's ids in front of a model that has others."""
    assert pretrained.trunk.token_ids[:3].tolist() != [0, 1, 2]
    _check(pretrained, *reload(pretrained))


def _check(run: Run, model, tokenizer) -> None:
    graphs = graphs_of(run)
    saved, own = model.state_dict(), run.trunk.lm.state_dict()
    assert all(torch.equal(saved[name], own[name]) for name in saved)
    prompt = tokenizer([line[: line.index("=") + 1] for line in lines_of(run, graphs)], return_tensors="pt")
    order = slice(None) if run.trunk.token_ids is None else run.trunk.token_ids
    with torch.no_grad():
        logits, expected = model(**prompt).logits[..., order], run.trunk.logits(run.trunk(graphs.prompt).normed)
        answers = model.generate(**prompt)[:, run.task.prompt_length :]
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    direct = run.objective.view(Batch(graphs.prompt, decode(run.trunk, run.objective, graphs.prompt, 3))).target
    assert torch.equal(answers, direct if run.trunk.token_ids is None else run.trunk.token_ids[direct])
    assert len({tuple(row) for row in direct.tolist()}) > 4, "all answers are alike: the test sees nothing"


def _official(symbols) -> str:
    text = " ".join(symbols)
    return re.sub(" ?([|/=]) ?", r"\1", text).replace(" ", ",")


def test_logits_are_equal_bit_for_bit_with_the_same_attention(reload):
    """Guards against a difference that is more than the rounding of another attention."""
    run = make_run(*GPT)
    model, _ = reload(run)
    model.set_attn_implementation(run.trunk.lm.config._attn_implementation)
    prompt = graphs_of(run).prompt
    with torch.no_grad():
        assert torch.equal(model(prompt).logits, run.trunk.lm(prompt).logits)


def test_the_folder_needs_no_pitfalls(tmp_path: Path):
    """Guards against a folder that loads only where it was written. The code of each README.md is run as it stands."""
    folders, expected = [], {}
    kinds = {name: [*GPT, f"objective={name}"] for name in ("next_token", "reversed", "teacherless", "first_hop")}
    kinds |= {"mamba": ["model=mamba_tiny", *MAMBAS], "mamba2": ["model=mamba2_tiny", *MAMBAS]}
    kinds |= {"hybrid": ["model=qwen3_next_tiny", *GPT]}
    runs = {name: make_run(*overrides) for name, overrides in kinds.items()}
    for name, run in runs.items():
        folder = pitfalls.export(run, tmp_path / name)
        folders.append(str(folder))
        sample = run.task.sample(1, generator(0, "probe"))
        answer = run.objective.view(Batch(sample.prompt, decode(run.trunk, run.objective, sample.prompt, 3))).target
        shown = answer[:, 1:2] if name == "first_hop" else answer
        expected[str(folder)] = _official(map(run.task.vocabulary.symbol, shown[0].tolist()))
    command = [sys.executable, "-I", "-c", BLOCKED, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {folder: said for folder, (said, _, _) in printed.items()} == expected
    for run, (_, tokens, logits) in zip(runs.values(), printed.values(), strict=True):
        with torch.no_grad():
            own = run.trunk.logits(run.trunk(torch.tensor([tokens])).normed)[0, -1]
        assert (torch.tensor(logits) - own).abs().max() <= 1e-5 * own.abs().max()


def test_a_trunk_with_convolutions_says_what_it_needs_and_its_code_runs(tmp_path: Path):
    """Guards against a card whose code does not load the model, because transformers does not know the architecture."""
    run = make_run("model=gpt_conv", "model.n_layers=2", *GPT)
    folder = pitfalls.export(run, tmp_path / "conv")
    card = (folder / "README.md").read_text()
    assert "`pitfalls` brings it" in card
    code = card.split("```python")[1].split("```")[0].replace("FOLDER", str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sample = run.task.sample(1, generator(0, "probe"))
    answer = decode(run.trunk, run.objective, sample.prompt, 3)
    assert done.stdout.strip() == _official(map(run.task.vocabulary.symbol, answer[0].tolist()))


# ------------------------------------------------------------------ what cannot be exported


@pytest.mark.parametrize("name", ["belief_state", "masked_diffusion", "random_order"])
def test_who_needs_more_than_the_model_is_refused(tmp_path: Path, name: str):
    """Guards against a folder whose answers are not the method's."""
    with pytest.raises(ConfigError, match=f"objective={name} cannot be exported"):
        pitfalls.export(make_run(f"objective={name}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_other_objective_is_exported(tmp_path: Path, objective_name: str):
    """Guards against a new objective that is refused by mistake, or let through."""
    if objective_name not in ("belief_state", "masked_diffusion", "random_order"):
        card = (pitfalls.export(make_run(f"objective={objective_name}"), tmp_path / "out") / "README.md").read_text()
        assert f"`{objective_name}`" in card
        assert max(len(line) for line in card.splitlines()) <= 160


def test_a_folder_with_files_is_left_alone(tmp_path: Path):
    """Guards against a run's own folder that is written over."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="there are files in it already"):
        pitfalls.export(make_run(), tmp_path)
    assert (tmp_path / "config.json").read_text() == "{}"


NOTES = {
    "reversed": "writes the path backwards",
    "teacherless": "answers in one pass",
    "first_hop": "first hop alone",
    "multi_token": "parameters of the objective are left out",
    "trelawney": "which need the package: lookahead",
}


@pytest.mark.parametrize("name", NOTES)
def test_the_card_says_what_is_different(tmp_path: Path, name: str):
    """Guards against a README without the differences, which users would then notice by wrong answers."""
    card = (pitfalls.export(make_run(f"objective={name}"), tmp_path / "out") / "README.md").read_text()
    others = [note for other, note in NOTES.items() if note in card and other != name]
    assert NOTES[name] in card
    assert others == (["parameters of the objective are left out"] if name == "trelawney" and "left out" in card else [])


def test_a_longer_answer_is_written_to_its_end_and_explained(reload, tmp_path: Path):
    """Guards against a model that stops within the path, and a card that calls every other order "backwards"."""
    run = make_run(*GPT)
    run.objective.__class__ = Twice
    graphs, (model, _) = graphs_of(run), reload(run)
    said = model.generate(graphs.prompt)[:, graphs.prompt.shape[1] :]
    assert torch.equal(run.objective.unview(said), decode(run.trunk, run.objective, graphs.prompt, 3))
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "An answer has 5 tokens." in card
    assert "is made of these tokens of the answer, counted from 0: 2, 3, 4." in card


@pytest.mark.parametrize("place", ["file", "file/x"])
def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, place: str):
    """Guards against NotADirectoryError without the value and the remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"folder=.*file is a file, not a folder; choose another folder"):
        pitfalls.export(make_run(), tmp_path / place)
