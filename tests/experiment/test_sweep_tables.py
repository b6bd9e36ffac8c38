"""The terminal's table of a sweep says in words which runs it holds."""

import re
from dataclasses import asdict, replace
from pathlib import Path

from pitfalls.experiment.sweep_tables import sweep_table, sweep_words, sweeps_of
from pitfalls.runs.files import write_json
from pitfalls.runs.run_folder import RECORD, run_name
from pitfalls.runs.sweeps import Job, Sweep
from pitfalls.schemas import Config
from tests.tiny_runs import a_record


def job(runs_dir: Path, config: Config, *overrides: str) -> Job:
    return Job(overrides, runs_dir / run_name(asdict(config)))


def test_the_words_of_a_sweep_come_first_and_its_file_last(tmp_path: Path, config: Config):
    """Guards against a list of sweeps whose lines begin with eight hex digits, which tell no reader what was trained."""
    config = replace(config, model=replace(config.model, name="my-own-model"))
    jobs = [
        job(tmp_path, replace(config, seed=seed, training=replace(config.training, lr=lr)), f"seed={seed}", f"training.lr={lr}")
        for seed in (0, 1)
        for lr in (0.1, 0.01)
    ]
    sweep = Sweep.of(jobs)
    sweep.write()
    table = sweep_table(sweep)
    assert table.title == (
        f"next_token; my-own-model; G(2,4) N=10; seeds 0, 1; training.lr=0.1, 0.01: 4 runs, 4 waiting (sweeps/{sweep.name}.json)"
    )
    assert all(row[0].startswith("next_token-my-own-model-g2_4-") for row in table.rows)


def test_many_values_are_counted(tmp_path: Path, config: Config):
    """Guards against a headline that is longer than its table."""
    jobs = [job(tmp_path, replace(config, seed=seed), f"seed={seed}", "task.train_graphs=null") for seed in range(12)]
    assert sweep_words(Sweep.of(jobs)) == "next_token; tiny; G(2,4) N=10; 12 seeds"
    assert sweep_words(Sweep.of(jobs[4:5])) == "next_token; tiny; G(2,4) N=10; seed 4"


def test_runs_that_no_sweep_started_have_words_and_no_file(tmp_path: Path, config: Config):
    """Guards against the name of a sweep's file that was never written, and folders of other names that end the display."""
    first = job(tmp_path, config)
    for folder in (first.run_dir, tmp_path / "copied by hand", tmp_path / "copied"):
        folder.mkdir()
        (folder / "resolved_config.json").touch()
    (sweep,) = sweeps_of(tmp_path)
    assert sweep_table(sweep).title == "next_token; tiny; G(2,4) N=10; seed 0; 1 other: 2 runs, 2 stopped"
    assert not re.search(r"[0-9a-f]{8}", sweep_table(sweep).title)
    assert sweep_words(Sweep.of([Job((), tmp_path / "copied")])) == "copied"


def test_a_finished_sweep_is_one_line_with_all_its_words(tmp_path: Path, config: Config, run_script):
    """Guards against lists in brackets, which a terminal library takes for styles, and a line that is broken in the middle."""
    jobs = [
        job(tmp_path, replace(config, training=replace(config.training, lr=lr)), lists, f"{'a_long_key' * 20}={lr}")
        for lr, lists in zip((0.1, 0.2), ("trackers=[]", "trackers=[tensorboard]"), strict=True)
    ]
    sweep = Sweep.of(jobs)
    for one in sweep.jobs:
        one.run_dir.mkdir()
        write_json(one.run_dir / RECORD, a_record(config))
    sweep.write()
    status, shown, errors = run_script("status", tmp_path)
    assert (status, errors) == (0, "")
    assert shown == sweep_table(sweep) + "\n"
    assert "; trackers=[], [tensorboard]; " in shown
    assert shown.endswith(f": 2 runs, 2 finished (sweeps/{sweep.name}.json)\n")
