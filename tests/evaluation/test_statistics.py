"""Paired differences: known answers, and intervals that cover as often as they say."""

import numpy as np
import pytest

from npq_assets.evaluation.statistics import paired_difference


def test_known_answer() -> None:
    # Sums by cluster: -3, -1, -2; mean -2, sd 1; t(0.975, 2) = 4.30265; half = 4.30265 * 1 * sqrt(3).
    found = paired_difference([1, 1, 4, 2], [3, 2, 5, 4], ["a", "a", "b", "c"])
    assert found.total == -6
    assert (found.low, found.high) == pytest.approx((-6 - 7.45241, -6 + 7.45241), abs=1e-4)
    assert found.ratio == pytest.approx(8 / 14)
    assert not found.significant


def test_a_steady_saving_is_significant() -> None:
    theirs = np.full(40, 10.0)
    assert paired_difference(theirs - 1, theirs, np.arange(40) // 4).significant


def test_one_cluster_proves_nothing() -> None:
    assert not paired_difference([1.0, 1.0], [9.0, 9.0], ["a", "a"]).significant


def test_the_interval_covers_the_truth_under_clustered_luck() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(15), 8)
    covered = 0
    for _ in range(400):
        luck = rng.normal(0, 3, 15)[clusters] + rng.normal(0, 1, clusters.size)
        found = paired_difference(luck - 0.5, np.zeros(clusters.size), clusters)
        covered += found.low <= -0.5 * clusters.size <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_rows_must_pair() -> None:
    with pytest.raises(ValueError, match="rows differ"):
        paired_difference([1, 2], [1], ["a", "b"])
