"""The shapes in annotations are checked while tests run. Without these tests, nobody would notice a broken hook."""

import jaxtyping
import pytest
import torch

from pitfalls import metrics
from pitfalls.tasks.path_star import PathStar


def test_a_wrong_shape_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="target"):
        metrics.correct(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long))


def test_a_wrong_dtype_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="prompt"):
        PathStar(2, 2, 5).start(torch.zeros(2, 9))
