"""Demand that an empty shelf hid: what was sold of an item that ran out is a lower bound of what was wanted.

Leaving such periods out would drop the busiest ones and so expect too little ever after (they are censored, not missing at
random); taking sales for demand would be worse. Each of them is given a draw from the distribution of demand, given that
demand was at least what was sold. Level, scatter and weekday of a draw come from the columns before it, so that a training row
knows what a forecast on its day would have known; later columns only decide which series lend their weekdays (those that ever
ran out) and whether a series counts in whole units. Periods in which
nothing was sold say nothing and stay unknown. Of days only: of longer periods it has not been measured. Learning from
covariates does not belong here (see `model`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npq_assets.forecasting.panel import Panel

_WEEK = 7
_HALF_LIFE = 28.0
_SLOW = 4.0
"""How many times slower the season of the week and the scatter are forgotten than the level."""
_LEAST_SCATTER = 1.05
_FAR = 1.0 - 1e-9

Array = NDArray[np.float64]


def raised(panel: Panel) -> Panel:
    """The panel with a draw for each period that was out of stock after sales; unchanged where there is none."""
    bound = panel.bound
    if bound is None or panel.calendar.unit != "D":
        return panel
    hidden = (bound > 0) & ~panel.observed
    rows = np.nonzero(hidden.any(1))[0]
    if not len(rows):
        return panel
    values = _filtered(panel, rows, hidden[rows])
    y, observed = panel.y.copy(), panel.observed | hidden
    y[rows] = np.where(hidden[rows], values, y[rows])
    return replace(panel, y=y, observed=observed)


def _filtered(panel: Panel, rows: np.ndarray, hidden: np.ndarray) -> Array:
    """Draws for the hidden cells of some rows (r, T), by a level and a season of the week that only look back."""
    y, seen = panel.y[rows], panel.observed[rows]
    assert panel.bound is not None
    bound = panel.bound[rows].astype(float)
    whole = (np.where(seen, y, 0.0) == np.round(np.where(seen, y, 0.0))).all(1) & (bound == np.round(bound)).all(1)
    fade = 0.5 ** (1.0 / _HALF_LIFE)
    slow = 0.5 ** (1.0 / (_SLOW * _HALF_LIFE))
    n, length = y.shape
    out = np.zeros((n, length))
    amount, exposure = np.zeros(n), np.zeros(n)
    by_day, usual = np.zeros((n, _WEEK)), np.zeros((n, _WEEK))
    square, expected = np.zeros(n), np.zeros(n)
    luck = _luck(panel, rows)
    for t in range(length):
        place = (panel.start + t) % _WEEK
        pooled = (by_day[:, place].sum() + 1.0) / (usual[:, place].sum() + 1.0)
        index = (by_day[:, place] + 8.0 * pooled) / (usual[:, place] + 8.0)
        known = exposure > 0.5
        level = np.divide(amount, exposure, out=np.zeros(n), where=known)
        mean = level * index
        value = y[:, t].copy()
        here = np.nonzero(hidden[:, t])[0]
        if len(here):
            scatter = np.maximum((square[here] + 10.0) / (expected[here] + 5.0), _LEAST_SCATTER)
            value[here] = bound[here, t]  # all that is known of the first periods
            usable = known[here] & (mean[here] > 0)
            told = here[usable]
            if len(told):
                variance = mean[told] * scatter[usable]
                value[told] = draw(mean[told], variance, bound[told, t], luck(told, t), whole[told])
            out[here, t] = value[here]
        count = (seen[:, t] | hidden[:, t]).astype(float)
        error = np.where(known, count, 0.0)
        square = slow * square + error * (value - mean) ** 2
        expected = slow * expected + error * mean
        amount = fade * amount + count * value
        exposure = fade * exposure + count * np.maximum(index, 0.05)
        alive = error * (level > 0)
        by_day[:, place] = slow**_WEEK * by_day[:, place] + alive * value / np.maximum(level, 1e-9)
        usual[:, place] = slow**_WEEK * usual[:, place] + alive
    return out


def draw(mean: Array, variance: Array, bound: Array, luck: Array, counts: NDArray[np.bool_]) -> Array:
    """Demand at `luck` of its distribution given that it was at least `bound`: negative binomial, or normal if measured.

    Args:
        mean: Expected demand, above 0 (n).
        variance: Its variance (n).
        bound: What was sold (n).
        luck: Probability between 0 and 1 (n).
        counts: Whether it is a count (n).
    """
    from scipy import special, stats

    out = np.array(bound, float)
    c = np.nonzero(counts)[0]
    if len(c):
        m, v = mean[c], np.maximum(variance[c], 1.0001 * mean[c])
        size, p = m * m / (v - m), m / v
        below = stats.nbinom.cdf(np.ceil(bound[c]) - 1, size, p)
        found = stats.nbinom.ppf(np.minimum(below + luck[c] * (1.0 - below), _FAR), size, p)
        out[c] = np.where(below < _FAR, np.maximum(found, bound[c]), bound[c])
    r = np.nonzero(~counts)[0]
    if len(r):
        sd = np.sqrt(np.maximum(variance[r], 1e-12))
        below = special.ndtr((bound[r] - mean[r]) / sd)
        found = mean[r] + sd * special.ndtri(np.minimum(below + luck[r] * (1.0 - below), _FAR))
        out[r] = np.where(below < _FAR, np.maximum(found, bound[r]), bound[r])
    return out


@dataclass(frozen=True)
class _Luck:
    key: NDArray[np.uint64]
    start: int

    def __call__(self, rows: np.ndarray, column: int) -> Array:
        # Splitmix64 of series and period: the same draw from whatever cut of the history.
        z = self.key[rows] + np.uint64((self.start + column) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        return np.asarray((z >> np.uint64(11)).astype(float) * 2.0**-53)


def _luck(panel: Panel, rows: np.ndarray) -> _Luck:
    import zlib

    key = [zlib.crc32(str(panel.ids[row]).encode()) << 20 for row in rows]
    return _Luck(np.array(key, dtype=np.uint64), panel.start)
