"""The reference reproduction of *The Pitfalls of Next-Token Prediction* (Bachmann & Nagarajan, ICML 2024).

``import pitfalls`` imports nothing heavy; take what you need from the submodules, for example
``from pitfalls.tasks.path_star import PathStar``. The README draws the tree.
"""

__version__ = "0.1.0"
