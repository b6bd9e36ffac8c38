"""The reference reproduction of *The Pitfalls of Next-Token Prediction* (Bachmann & Nagarajan, ICML 2024).

``import pitfalls`` offers functions for notebooks, and imports nothing heavy before it is used. docs/notebook.md has an
example of each function. Everything else is in the submodules, for example ``from pitfalls.tasks.path_star import PathStar``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the types for editors and mypy
    from pitfalls.experiment.build import Run, load_run
    from pitfalls.experiment.compare import Comparison, compare
    from pitfalls.experiment.export import export
    from pitfalls.experiment.notebook import (
        Answer,
        answer,
        attention,
        hidden_states,
        plot_graph,
        prompt,
        train,
    )
    from pitfalls.report.figures import plot_curves, plot_entropy, plot_positions, plot_positions_over_training
    from pitfalls.results.data_frame import kept, records
    from pitfalls.results.groups import grouped
    from pitfalls.schemas import PitfallsError

__version__ = "0.1.0"

_HOMES = {
    "experiment.build": ("Run", "load_run"),
    "experiment.compare": ("Comparison", "compare"),
    "experiment.export": ("export",),
    "experiment.notebook": (
        "Answer",
        "answer",
        "attention",
        "hidden_states",
        "plot_graph",
        "prompt",
        "train",
    ),
    "report.figures": ("plot_curves", "plot_entropy", "plot_positions", "plot_positions_over_training"),
    "results.data_frame": ("kept", "records"),
    "results.groups": ("grouped",),
    "schemas": ("PitfallsError",),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - by topic; the names are found by __getattr__
    "load_run",
    "train",
    "Run",
    "prompt",
    "answer",
    "Answer",
    "hidden_states",
    "attention",
    "compare",
    "Comparison",
    "export",
    "records",
    "kept",
    "grouped",
    "plot_graph",
    "plot_curves",
    "plot_positions",
    "plot_positions_over_training",
    "plot_entropy",
    "PitfallsError",
]


def __getattr__(name: str) -> Any:
    """Return one of the names in ``__all__``, and import its module now."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """Return all names, also those that have not been used yet."""
    return sorted({*globals(), *__all__})
