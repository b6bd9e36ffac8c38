"""Copies the presets of conf/ into a package that is built. All else is in pyproject.toml; an editable install reads conf/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    """Builds the package with conf/ as ``pitfalls/conf`` (`pitfalls.experiment.config.CONF`)."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "pitfalls", "conf")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("conf", target)


setup(cmdclass={"build_py": BuildWithPresets})
