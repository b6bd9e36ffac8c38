"""Configs: every preset works, and a mistake anywhere is one clear line before any compute."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from pitfalls.experiment import hydra_app
from pitfalls.experiment.build import build
from pitfalls.experiment.cli import exit_on_error
from pitfalls.experiment.config import CONF, load_config, resolve, write_config
from pitfalls.experiment.hydra_app import compose, main, override
from pitfalls.experiment.run import train_run
from pitfalls.objectives import NAMES
from pitfalls.runs.files import FileError
from pitfalls.schemas import Config, ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks import splits
from pitfalls.training.optimizers import make_optimizers
from pitfalls.training.trainer import DivergedError

ROOT = CONF.parent
SMALL = ["training.batch_size=4", "training.precision=fp32", "training.device=cpu"]


def presets(group: str) -> list[str]:
    return [str(path.relative_to(CONF / group).with_suffix("")) for path in sorted((CONF / group).rglob("*.yaml"))]


GROUPS = ("task", "model", "objective", "optimizer", "training", "experiment")
EVERY_PRESET = [f"{group}={name}" for group in GROUPS for name in presets(group)]


@cache
def small(*presets: str) -> Config:
    """The config of presets with a small batch."""
    return compose([*presets, *SMALL])


def test_every_group_is_tried():
    """Guards against a new folder under conf/ that no test reads."""
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "hydra", "degeneration"}, "the last is no group of a run: tests/degeneration reads it"


FAMILIES = {"gpt2": "gpt2", "gpt2_large": "gpt2", "pythia_410m": "pythia"}
"""The presets of hub models, and the family of the tiny ones that take their place."""
WORDS = ["<s>", "</s>", *map(str, range(50)), "|", "/", "=", "$", "_", "#", "[", "]", ".", ";"]


@pytest.fixture(scope="session")
def hub_cache(tmp_path_factory, save_lm) -> Path:
    """A cache of the hub with tiny models under the ids and commits of the presets."""
    cache = tmp_path_factory.mktemp("hub")
    for preset, family in FAMILIES.items():
        model = yaml.safe_load((CONF / "model" / f"{preset}.yaml").read_text())
        snapshot = cache / f"models--{model['source'].replace('/', '--')}" / "snapshots" / model["revision"]
        shutil.copytree(save_lm(family, WORDS, len(WORDS), 64), snapshot)
    return cache


@pytest.fixture
def pretrained_models(monkeypatch, hub_cache, save_lm) -> None:
    """Tiny models in place of the presets' real ones, found as the real ones are, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("pitfalls.models.model_folder.converted_folder", lambda: save_lm("llama", WORDS, len(WORDS), 64))


@pytest.mark.usefixtures("pretrained_models")
@pytest.mark.parametrize("preset", EVERY_PRESET)
def test_preset_composes_builds_and_takes_a_step(preset):
    """Guards against presets that no longer work, because nothing runs them."""
    run = build(resolve(small(preset)))
    optimizer = make_optimizers(run.trunk, run.objective, run.config.optimizer, run.config.training)
    batch = run.task.sample(4, generator(0, "data"))
    loss = run.objective.training_loss(run.trunk, batch, step=0, generator=generator(0, "objective"))
    loss.total.backward()
    optimizer.step()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(p).all() for p in run.trunk.parameters())


@pytest.mark.parametrize("name", presets("experiment"))
def test_experiment_changes_the_config(name):
    """Guards against ignored presets: with _self_ last in the defaults list, hydra silently ignores them."""
    assert small(f"experiment={name}") != small()


def test_command_line_wins_over_a_preset():
    config = compose(["experiment=laptop/teacherless", "training.n_steps=1321"])
    assert config.training.n_steps == 1321
    assert config.objective.name == "teacherless"


def test_seed_zero_is_a_seed():
    """Guards against ``if cfg.seed``, which would ignore it."""
    assert compose(["seed=0"]).seed == 0
    a, b = (build(resolve(compose([f"seed={s}", *SMALL]))) for s in (0, 1))
    assert not torch.equal(next(a.trunk.parameters()), next(b.trunk.parameters()))


MISTAKES = {
    "training.lrr=1": "did you mean training.lr?",
    "trainin.lr=1": "did you mean training",
    "task.n_value=9": "did you mean task.n_values?",
    "+training.lrr=1": "training.lrr: there is no such key",
    "+model.widht=3": "model.widht: there is no such key",
    "+anything=3": "anything: there is no such key",
    "training.lr=ten": "training.lr=ten: it must be a number",
    "training.n_steps=1.5": "training.n_steps=1.5: it must be a whole number",
    "training.stop_at=null": "training.stop_at=null: it needs a value",
    "trackers=wandb": "trackers=wandb: it must be a list; write trackers=[wandb]",
    "trackers=tensorboard,wandb": "trackers=tensorboard,wandb: it must be a list; write trackers=[tensorboard,wandb]",
    "objective.weight=3": "objective.weight: there is no such key; objective=next_token has name",
    "+objective.weight=3": "objective=next_token has name",
    "model.expand=3": "model=gpt_tiny has name, architecture",
    "~nope": "~nope: there is no such key",
    "seed": "seed: it has no value; write seed=VALUE",
    "training.lrr": "training.lrr: it has no value; did you mean training.lr?",
    "training.lr=[1": 'training.lr=[1: hydra\'s grammar cannot read this value; write "training.lr=[a,b]"',
    "seed=1,2": "seed=1,2: several values are a sweep; add -m",
    "training=3": "training=3: a group takes the name of a preset",
    "training.lr=0": "training.lr=0.0: it must be > 0",
    "training.lr=nan": "training.lr=nan",
    "training.n_steps=0": "training.n_steps=0: it must be >= 1",
    "training.beta2=1.5": "training.beta2=1.5: it must be >= 0 and <= 1",
    "training.schedule=cosin": "choose one of constant, linear, cosine",
    "training.precision=fp16": "choose one of auto, bf16, fp32",
    "training.stop_metric=loss": "choose one of exact_match, first_hop, other_positions",
    "optimizer=muo": "optimizer=muo: no such preset; did you mean muon?",
    "optimizer.lr=0.1": "optimizer.lr: there is no such key",
    "training.accumulation=7": "training.batch_size=128 is not a multiple of training.accumulation=7",
    "training.warmup_steps=601": "training.warmup_steps=601 exceeds training.n_steps=600",
    "training.decay_steps=501": "training.decay_steps=501",
    "task.n_values=8": "so set task.n_values to at least 9",
    "task.targets_per_graph=3": "has 2 goals; set a number from 1 to 2",
    "task.train_graphs=100": "fewer than one batch",
    "seed=-1": "seed=-1",
    "model.n_heads=5": "model.width=128 is not a multiple of model.n_heads=5",
    "model=gtp_tiny": "gpt_tiny",
    "experiment=nope": "experiment=nope: no such preset; choose one of corrected",
    "experiment=teacherless": "did you mean laptop/teacherless?",
    "experiment=laptop": "but a folder; choose one of laptop/first_hop",
    "experiment=laptop/reverse": "did you mean laptop/reversed",
    "objective=teachrless": "objective=teachrless: no such preset; did you mean teacherless?",
    "objective=": f"objective=: no such preset; choose one of {NAMES[0]}",
    "objective=??": "objective=??: no such preset",
    "task.test_graphs=99999999999": "task.test_graphs=99999999999: it must be >= 1 and <= 1,000,000",
    "task.train_graphs=99999999999": "task.train_graphs=99999999999: it must be >= 1 and <= 10,000,000",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_mistake_is_one_line_with_the_remedy(override):
    """Guards against silent mistakes: hydra accepts +key for a misspelt key, and does not check ranges."""
    with pytest.raises(ConfigError) as caught:
        compose([override])
    assert MISTAKES[override] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_objective_and_an_impossible_split_are_refused():
    with pytest.raises(ConfigError, match=f"objective.name=nope: choose one of {NAMES[0]}, {NAMES[1]}"):
        compose(["objective.name=nope"])
    impossible = compose(["task.degree=2", "task.path_length=2", "task.n_values=5"])
    with pytest.raises(ConfigError, match="only 30 distinct graphs: no disjoint split"):
        resolve(impossible)


IN_A_PRESET = {
    "model: {widht: 3}": "PRESET: model.widht: there is no such key; did you mean model.width?",
    "training: {lr: ten}": "PRESET: training.lr=ten: it must be a number",
    "trainin: {lr: 1}": "PRESET: trainin: there is no such key; did you mean training?",
    "training: {lr: -1}": "training.lr=-1.0: it must be > 0",
    "objective: {weight: 3}": "objective=next_token has name",
    "objective: teachrless": "objective=teachrless: a file chooses a preset by `defaults: [override /objective: NAME]`",
    "defaults: [override /objective: teachrless]": "did you mean teacherless?",
    "defaults: [{override /objective: teachrless}]": "PRESET: objective=teachrless",
    "defaults: [{nope: 3}]": "Unsupported item value in defaults",
    "defaults: 3": "defaults must be a list",
    "task: 3": "PRESET: task=3: a group holds keys",
    "a: [1\nb: 2": "PRESET line 3: expected ',' or ']'",
    "\tseed: 1": "PRESET line 2: found character",
    "seed: \0": "PRESET line 2: special characters are not allowed",
    "seed: ${nope}": "Interpolation key 'nope' not found; write the value itself",
    "seed: 1  # \udcff": "PRESET line 2: not UTF-8",
}


@pytest.fixture
def preset(tmp_path, monkeypatch) -> Path:
    """A path in experiment/ of a copy of conf/, which is composed from instead of the real one."""
    monkeypatch.setattr(hydra_app, "CONF", shutil.copytree(CONF, tmp_path / "conf"))
    return tmp_path / "conf" / "experiment" / "mistake.yaml"


@pytest.mark.parametrize("content", IN_A_PRESET)
def test_mistake_in_a_preset_file_is_one_line_with_its_place(preset, content):
    """Without schemas, hydra trains with the default of a misspelt key. A file that is no YAML was a traceback."""
    preset.write_bytes(f"# @package _global_\n{content}\n".encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        compose([f"experiment={preset.stem}"])
    assert IN_A_PRESET[content].replace("PRESET", f"conf/experiment/{preset.name}") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preset_without_its_first_line_says_so(preset):
    """Guards against "ConfigKeyError raised while composing config:" with nothing behind the colon."""
    preset.write_text("objective: teachrless\n")
    with pytest.raises(ConfigError, match="its first line must be `# @package _global_`"):
        compose([f"experiment={preset.stem}"])


def test_overrides_are_a_list():
    """Guards against a text whose letters are taken for overrides: "Error parsing override 'o'"."""
    with pytest.raises(ConfigError, match=r"a text, and a list of texts is needed; write \['objective=reversed'\]"):
        compose("objective=reversed")


def test_run_folder_config_is_read_as_data(tmp_path):
    """Guards against a config of a stranger that names code or passes without the checks."""
    config = resolve(compose(["objective=reversed", "runs_dir=x"]))
    write_config(config, tmp_path / "resolved_config.json")
    assert load_config(tmp_path) == config
    data = json.loads((tmp_path / "resolved_config.json").read_text())
    for change in (
        {"_target_": "os.system"},
        {"seed": -1},
        {"model": data["model"] | {"_target_": "x"}},
        {"task": 3},
        {"model": data["model"] | {"architecture": "os.system"}},
    ):
        (tmp_path / "resolved_config.json").write_text(json.dumps(data | change))
        with pytest.raises(ConfigError, match="resolved_config.json"):
            load_config(tmp_path)
    with pytest.raises(ConfigError, match="not the folder of a run"):
        load_config(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not the folder of a run"):
        load_config(tmp_path / "resolved_config.json")  # a file


def test_a_config_that_is_not_resolved_names_no_run():
    """Guards against a run whose folder says auto, and is another one than the run that trained with bf16."""
    with pytest.raises(ValueError, match="not resolved"):
        train_run(compose(["training.device=auto"]))


def test_a_config_is_resolved_and_checked_once(tmp_path, monkeypatch):
    """Guards against checks in several places: they cost seconds in each job of a sweep, and drift apart."""
    calls = []
    check_split = splits.check_split
    monkeypatch.setattr(splits, "check_split", lambda task, **sizes: calls.append(task) or check_split(task, **sizes))
    monkeypatch.setattr(hydra_app, "train_run", lambda config, **_: calls.append(config))
    monkeypatch.setattr(sys, "argv", ["train.py", f"runs_dir={tmp_path}", "training.device=cpu"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it, for this process and those that it starts
    main()
    _task, config = calls
    assert config.training.precision in ("bf16", "fp32")


def test_no_field_has_a_default_in_code():
    """Guards against hidden defaults: pythia lost an initialisation to a default that no config showed."""
    from pitfalls import schemas

    for schema in (schemas.Config, schemas.TaskConfig, schemas.GPT2ModelConfig, schemas.TrainingConfig):
        for field in dataclasses.fields(schema):
            assert field.default is dataclasses.MISSING, field.name
            assert field.default_factory is dataclasses.MISSING, field.name


def run_main(monkeypatch, capsys, *arguments: str) -> str:
    """The line with which ``scripts/train.py ARGUMENTS`` ends."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    monkeypatch.setattr(hydra_app, "train_run", lambda *_, **__: pytest.fail("it trains"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it, for this process and those that it starts
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_sweep_with_an_impossible_job_starts_none(monkeypatch, capsys, tmp_path):
    """Guards against a range error that hydra finds only when the job starts, after hours of other jobs."""
    line = run_main(monkeypatch, capsys, "-m", f"runs_dir={tmp_path}", "training.lr=1e-3,-1", "seed=0,1")
    assert line.startswith("error: job [")
    assert "training.lr=-1" in line
    assert "no job was started" in line
    assert not list(tmp_path.glob("*/resolved_config.json"))


def test_command_line_mistake_is_one_line_and_status_2(monkeypatch, run_script, tmp_path):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # as in run_main
    done = run_script("train", f"runs_dir={tmp_path}", "training.lr=-1")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: training.lr=-1.0: it must be > 0"


def test_own_presets_are_in_the_help_and_in_the_remedy(monkeypatch, capsys, tmp_path):
    """Guards against `--config-dir D --help` that ignores D, also if the name of D needs quotes."""
    own = tmp_path / "josé (2026), #{1}"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 77\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(own), "experiment=mine", "--help"])
    main()
    shown = capsys.readouterr().out
    assert ", mine\n" in shown
    assert "\nseed: 77\n" in shown
    assert "did you mean mine?" in run_main(monkeypatch, capsys, "--config-dir", str(own), "experiment=mien")


ANY_TEXT = [
    "josé (2026)",
    "a,b",
    "x#y",
    "{z}",
    "it's",
    "tail\\",
    "q\\'x",
    "a${b}c",
    "\\${x}",
    "a'${oc.env:HOME}'",
    "1e3",
    "null",
    "[a]",
    "a=b:c",
    "日本",
    "'",
    "~x",
    "a\tb",
    " a ",
]


@pytest.mark.parametrize("text", ANY_TEXT)
def test_a_folder_may_have_any_name(text):
    """Guards against `make reproduce` that fails in a folder with a letter beyond ASCII or a bracket in its name."""
    assert compose([override("runs_dir", text)]).runs_dir == text


def test_an_interpolation_is_resolved_once():
    """Guards against a text of which omegaconf resolves the result again."""
    assert compose(["seed=3", "runs_dir='\\${seed}'"]).runs_dir == "${seed}"
    assert compose(["seed=3", "runs_dir='r${seed}'"]).runs_dir == "r3"


def test_a_config_that_its_record_could_not_hold_is_refused():
    """Guards against a run that trains for hours, and whose record its own reader then refuses."""
    with pytest.raises(ConfigError, match=r"length <= 4096 - at `\$.runs_dir`; choose another value"):
        resolve(compose([override("runs_dir", "x/" * 2500)]))


def test_a_parameter_that_the_preset_lacks_is_told_with_the_file(monkeypatch, tmp_path):
    """Guards against advice that does not work: the command line cannot set a key that the preset does not have."""
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "objective" / "token_order.yaml").write_text("name: token_order\nweight: 1.0\ntemperature: 1.0\n")
    monkeypatch.setattr(hydra_app, "CONF", tmp_path / "conf")
    with pytest.raises(ConfigError, match=r"objective.horizon: it has no value; write one in conf/objective/token_order.yaml"):
        compose(["objective=token_order"])


def test_out_of_memory_is_one_line(monkeypatch, capsys, tmp_path):
    """Guards against forty lines of torch when a batch does not fit."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(hydra_app, "train_run", full)
    monkeypatch.setattr(sys, "argv", ["train.py", f"runs_dir={tmp_path}", "training.device=cpu"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("error: out of memory: lower training.batch_size")


def test_a_bug_behind_hydra_shows_its_traceback(monkeypatch):
    """Guards against a ValueError of ours that is printed as if a preset were wrong."""
    monkeypatch.setattr(sys, "argv", ["train.py", "training.device=cpu"])
    monkeypatch.setattr(hydra_app, "train_run", lambda *_, **__: int("x"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(ValueError, match="invalid literal"):
        main()


def test_cfg_shows_everything_that_can_change_a_number(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "job"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it, for this process and those that it starts
    main()
    shown = yaml.safe_load(capsys.readouterr().out)
    config = dataclasses.asdict(compose([]))
    assert {k: shown[k] for k in config} == config


def test_application_exits_with_its_own_status():
    with pytest.raises(SystemExit) as caught:
        exit_on_error(lambda: compose(["seed=-1"]))
    assert caught.value.code == 2


@pytest.mark.parametrize("error", [ValueError("zip() argument 2 is shorter"), RuntimeError("x"), KeyError("k")])
def test_a_bug_shows_its_traceback(error):
    """Guards against a mistake in the code that ends in one line, as if the user had made it: nobody could find it."""

    def program():
        raise error

    with pytest.raises(type(error)):
        exit_on_error(program)


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("a\nb"), 2), (FileError("x"), 1), (DivergedError("x"), 1), (OSError("x"), 1), (KeyboardInterrupt(), 130)],
)
def test_what_a_user_can_mend_is_one_line(error, status, capsys):
    def program():
        raise error

    with pytest.raises(SystemExit) as caught:
        exit_on_error(program)
    assert caught.value.code == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    """Guards against an error of ``scripts/collect.py runs | head``: it prints the lines, and nothing about a broken pipe."""
    program = "from pitfalls.experiment.cli import exit_on_error as e; e(lambda: [print('line') for _ in range(100_000)])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def help_with(monkeypatch, capsys, *overrides: str) -> str:
    monkeypatch.setattr(sys, "argv", ["train.py", "--help", *overrides])
    main()
    return capsys.readouterr().out


def test_help_shows_every_choice_and_the_keys_of_what_is_chosen(monkeypatch, capsys):
    shown = help_with(monkeypatch, capsys, "objective=belief_state", "seed=7")
    assert "degeneration" not in shown, "its files are no choices of a run"
    for group in ("experiment", "experiment/laptop", "model", "objective", "task", "training"):
        line = next(line for line in shown.splitlines() if line.startswith(f"{group}: "))
        assert line.removeprefix(f"{group}: ").split(", ") == sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    config = yaml.safe_load(shown.split("key.key=value) ==")[1].split("== Examples")[0])
    assert (config["objective"]["name"], config["seed"]) == ("belief_state", 7)
    assert {"head_ratio"} < set(config["objective"])


def test_help_with_a_mistake_is_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        help_with(monkeypatch, capsys, "seeed=7")
    assert caught.value.code == 2
    assert "did you mean seed?" in capsys.readouterr().err


def test_main_leaves_the_environment_as_it_was(monkeypatch, capsys):
    """Guards against later processes that show tracebacks and ignore SIGTERM, because hydra was asked for full errors once."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr("sys.argv", ["scripts/train.py", "task=nowhere"])
    with pytest.raises(SystemExit):
        main()
    assert "HYDRA_FULL_ERROR" not in os.environ
