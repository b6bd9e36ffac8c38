"""The package works without its checkout: presets come with it, and records name no commit of another project."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from pitfalls.experiment.config import CONF, ROOT
from pitfalls.runs.provenance import environment


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_record_names_the_commit_of_its_own_checkout_only(tmp_path: Path):
    """Guards against a package inside of someone else's repository (an environment, a vendored copy) that takes its commit."""
    inside = tmp_path / "venv" / "lib"
    inside.mkdir(parents=True)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "of another project")
    about = environment(inside)
    assert (about["commit"], about["dirty"]) == (None, None)
    about = environment(tmp_path)
    assert (about["commit"], about["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "src").write_text("not committed")
    assert environment(tmp_path)["dirty"]


def test_a_checkout_reads_its_own_presets():
    assert CONF == ROOT / "conf" == Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.slow
def test_an_installed_package_brings_its_presets(tmp_path: Path):
    """Guards against a package without presets: after ``pip install .``, ``pitfalls-train`` found no conf/."""
    source = tmp_path / "source"
    names = git(ROOT, "ls-files", "--", "src", "conf", "pyproject.toml", "README.md", "LICENSE")
    for name in filter(lambda name: (ROOT / name).is_file(), names.splitlines()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    target = tmp_path / "venv"
    venv.create(target, with_pip=False)
    own_python = target / "bin" / "python"
    pip, offline = [sys.executable, "-m", "pip"], ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "--python", str(own_python), "install", *offline, str(wheel)], check=True)
    others = next(path for path in map(Path, sys.path) if (path / "torch").is_dir())  # torch, hydra and so on
    (own_packages,) = target.glob("lib/python*/site-packages")
    (own_packages / "others.pth").write_text(f"{others}\n")
    done = subprocess.run(
        [str(target / "bin" / "pitfalls-train"), "--cfg", "job", "model=mamba2_tiny"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["model"]["architecture"] == "mamba2"
