"""How sure a difference is: paired, and clustered by site, since the rows of a site share their luck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """A paired difference of costs, ours minus theirs.

    Attributes:
        total: Sum of the differences (money); negative is a saving.
        low: Lower end of the confidence interval of the sum.
        high: Upper end.
        ratio: Our total over theirs.
        ratio_low: Lower end for the ratio, theirs taken as given.
        ratio_high: Upper end.
        clusters: Number of clusters behind the interval.
        confidence: Its confidence.
    """

    total: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    clusters: int
    confidence: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        verdict = "significant" if self.significant else "not significant"
        return (
            f"difference {self.total:,.1f} [{self.low:,.1f}, {self.high:,.1f}], ratio {self.ratio:.3f} "
            f"[{self.ratio_low:.3f}, {self.ratio_high:.3f}], {self.confidence:.0%} by {self.clusters} clusters, {verdict}"
        )


def paired_difference(ours: ArrayLike, theirs: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Difference:
    """Difference of two costs observed on the same rows, with a cluster-robust confidence interval.

    The clusters' sums of differences are taken as independent draws: the interval of their total is Student's with
    G - 1 degrees of freedom (Cameron & Miller, A practitioner's guide to cluster-robust inference, 2015, sec. VI).

    Args:
        ours: Cost by row.
        theirs: Cost of the same rows under the other policy.
        clusters: Which rows belong together.
        confidence: Of the interval.
    """
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    names = np.asarray(clusters)
    if not a.shape == b.shape == names.shape:
        raise ValueError(f"rows differ: {a.shape}, {b.shape}, {names.shape}")
    _, group = np.unique(names, return_inverse=True)
    sums = np.bincount(group, weights=a - b) if len(a) else np.zeros(0)
    count, total = len(sums), float(sums.sum())
    half = (
        float(stats.t.ppf(0.5 + confidence / 2, count - 1) * sums.std(ddof=1) * np.sqrt(count))
        if count > 1
        else float("inf")
    )
    base = float(b.sum())
    scale = base if base > 0 else float("nan")
    return Difference(
        total, total - half, total + half, float(a.sum()) / scale, 1 + (total - half) / scale, 1 + (total + half) / scale,
        count, confidence,
    )  # fmt: skip
