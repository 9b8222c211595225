"""A planner's number in place of a forecast's mean: the distribution moves with it.

The spread follows the mean as it does from product to product: like a Poisson's for a few units (variance over mean is kept),
in proportion for many. Whether a number was worth it does not belong here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
_NOTHING = 1e-6


def moved_quantiles(values: Array, mean: Array, wanted: Array, levels: Array) -> Array:
    """Quantiles (r, K) of distributions with `mean` (r), moved to the means `wanted` (r); never crossing, never negative.

    Args:
        values: Quantiles at `levels`, non-decreasing (r, K).
        mean: The engine's means (r).
        wanted: The planner's numbers (r).
        levels: Probabilities (K).
    """
    none = mean <= _NOTHING
    factor = _widening(np.where(none, 1.0, mean), wanted)
    moved = np.maximum(wanted[:, None] + (values - mean[:, None]) * factor[:, None], 0.0)
    # The engine expects nothing: what a planner expects then is a count about which nothing more is known.
    moved[none] = stats.poisson.ppf(levels[None, :], np.maximum(wanted[none], 0.0)[:, None])
    return np.where(wanted[:, None] <= 0, 0.0, moved)


def moved_scenarios(values: Array, wanted: float) -> Array:
    """Scenarios of one period (S) moved to the mean `wanted`, exactly; their order, hence their links, stay."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if wanted <= 0:
        return np.zeros_like(values)
    if mean <= _NOTHING:
        strata = (np.arange(len(values)) + 0.5) / len(values)
        moved = np.random.default_rng(len(values)).permutation(stats.poisson.ppf(strata, wanted))
    else:
        factor = float(_widening(np.array([mean]), np.array([wanted]))[0])
        moved = np.maximum(wanted + (values - mean) * factor, 0.0)
    total = float(moved.mean())
    return np.full_like(values, wanted) if total <= 0 else moved * (wanted / total)


def _widening(mean: Array, wanted: Array) -> Array:
    """Factor on the standard deviation when a mean moves."""
    ratio = wanted / mean
    return np.sqrt(ratio * (1 + wanted) / (1 + mean))
