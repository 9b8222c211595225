"""What learners answer keeps its meaning whichever rows they saw."""

import numpy as np
import pytest

from npq_assets.equipment.learners import Learner, random_trees, smooth_classes


@pytest.mark.parametrize("learner", [random_trees("classes", trees=10, classes=4), smooth_classes(classes=4)])
def test_a_class_without_rows_keeps_its_column(learner: Learner) -> None:
    """The second and the last of four were in no row: what is of the third was told as the second."""
    x = np.random.default_rng(0).normal(size=(200, 2))
    y = np.where(x[:, 0] > 0, 2.0, 0.0)
    found = learner(x, y, np.array([[2.0, 0.0], [-2.0, 0.0]]))
    assert found.shape == (2, 4) and found.argmax(axis=1).tolist() == [2, 0]
    assert (found[:, [1, 3]] == 0).all() and found.sum(axis=1) == pytest.approx(1.0)
