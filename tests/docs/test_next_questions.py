"""The pages' answers to what a reader asks next are tried: a Llama, another architecture, another task, curves in TensorBoard."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import pitfalls
from pitfalls.experiment.build import build, make_run_splits
from pitfalls.experiment.config import resolve
from pitfalls.experiment.evaluate_run import new_graphs
from pitfalls.models.hf_internals import blocks
from pitfalls.schemas import MODEL_SCHEMAS
from pitfalls.seeding import generator
from pitfalls.tasks.path_star import PathStar
from tests.docs import pages
from tests.docs.pages import BLOCK, ROOT
from tests.tiny_runs import TINY

CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def overrides(page: Path, part: str) -> list[str]:
    """Return the overrides of the only command of a page that trains and has some text."""
    (command,) = (line for line in pages.commands(page) if part in line and "scripts/train.py" in line)
    return shlex.split(command)[2:]


def tiny(*chosen: str) -> list[str]:
    """Return the overrides of a tiny run without those of a model, a task, or what was chosen."""
    keys = {text.split("=")[0] for text in chosen}
    return [*chosen, *(text for text in TINY if not text.startswith(("model", "task=")) and text.split("=")[0] not in keys)]


def test_the_llama_of_the_page_trains(tmp_path: Path):
    """Guards against a command that does not run, and against sizes that it sets and the model does not have."""
    told = overrides(ROOT / "docs" / "models.md", "model=llama_tiny")
    run = pitfalls.load_run(pitfalls.train(tiny(*told, "model.sizes.num_hidden_layers=2"), runs_dir=tmp_path, quiet=True))
    assert not hasattr(run.trunk.lm.base_model, "wpe"), "positions are rotary"
    assert blocks(run.trunk.lm)[0].self_attn.q_proj.weight.shape == (4 * 32, 128)
    edges = [(1, 2), (3, 4), (5, 1), (5, 3)]
    assert pitfalls.attention(run, pitfalls.prompt(run, edges, 5, 4)).shape == (2, 1, 4, 15, 15)


def test_the_preset_of_the_page_trains(config):
    """Guards against a file in the page that is no preset, or whose architecture is no trunk."""
    text = (ROOT / "docs" / "models.md").read_text()
    (preset,) = (yaml.safe_load(block) for kind, block in BLOCK.findall(text) if kind == "yaml")
    assert preset.pop("defaults") == [f"{preset['architecture']}_schema"]
    run = build(resolve(replace(config, model=MODEL_SCHEMAS[preset["architecture"]](**preset))))
    run.objective.training_loss(
        run.trunk, run.task.sample(4, generator(0, "data")), step=0, generator=generator(0, "objective")
    ).total.backward()
    assert all(parameter.grad is not None for parameter in run.trunk.parameters())


def test_another_graph_is_no_code(tmp_path: Path):
    told = [text for text in overrides(CONTRIBUTING, "task.degree=4") if not text.startswith("runs_dir")]
    run = pitfalls.load_run(pitfalls.train(tiny(*told, "model=gpt_nano", "model.width=16"), runs_dir=tmp_path, quiet=True))
    assert (str(run.task), run.task.n_values) == ("G(4,6)", 50)


def test_other_graphs_come_from_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against a page that names one place for new graphs, where data comes from two: here all edge lists are sorted."""
    sample = PathStar.sample

    def sorted_sample(self: PathStar, *arguments, **options):
        batch = sample(self, *arguments, **options)
        pairs = self.edges(batch.prompt)
        pairs[:] = pairs.gather(1, pairs[:, :, :1].argsort(dim=1, stable=True).expand(-1, -1, 2))
        return batch

    monkeypatch.setattr(PathStar, "sample", sorted_sample)
    run = pitfalls.load_run(pitfalls.train([*TINY, "task.train_graphs=32"], runs_dir=tmp_path, quiet=True))
    splits = make_run_splits(run)
    for batch in (splits.test, splits.train.batch(0), splits.train.all_rows(), new_graphs(50, 0, run)):
        first = run.task.edges(batch.prompt)[:, :, 0]
        assert (first[:, 1:] >= first[:, :-1]).all()


def test_the_page_names_every_place_that_makes_a_task():
    """Guards against a fourth place, which somebody with another task would find by an error."""
    text = CONTRIBUTING.read_text().split("## Add a task")[1].split("## Add")[0]
    named = set(re.findall(r"`(src/\S+\.py)`", text))
    package = ROOT / "src" / "pitfalls"
    making = {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py") if "PathStar(config." in path.read_text()}
    making |= {path.relative_to(ROOT).as_posix() for path in package.rglob("*.py") if "PathStar(run.config." in path.read_text()}
    assert making == {name for name in named if "/experiment/" in name}
    assert named - making == {f"src/pitfalls/{name}.py" for name in ("tasks/path_star", "tasks/vocabulary", "schemas")}


def test_tensorboard_has_the_curves_that_the_page_names(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    text = (ROOT / "docs" / "running.md").read_text().split("## Trackers")[1].split("\n## ")[0]
    (chosen,) = (word for word in overrides(ROOT / "docs" / "running.md", "trackers=") if word.startswith("trackers"))
    folder = pitfalls.train([*TINY, chosen], runs_dir=tmp_path, quiet=True)
    read = accumulator.EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    named = set(re.findall(r"`((?:train|test)/\w+)`", text))
    assert len(named) == 3
    assert named <= set(read.Tags()["scalars"])
