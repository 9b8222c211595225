"""Demand that an empty shelf hid: what was sold of an item that ran out is a lower bound of what was wanted.

Leaving such periods out would drop the busiest ones and so expect too little ever after (they are censored, not missing at
random); taking sales for demand would be worse. Each of them is given a draw from the distribution of demand, given that
demand was at least what was sold. All that a draw uses comes from the columns before it, so that a training row knows what a
forecast on its day would have known. Periods in which nothing was sold say nothing and stay unknown. Of days only: of longer
periods it has not been measured. The first draw knows level and weekday; the targets that a model learns from are drawn again
by what it expects itself (`redrawn`).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npq_assets.forecasting.panel import Panel
from npq_assets.forecasting.rows import Rows

_WEEK = 7
_HALF_LIFE = 28.0
_SLOW = 4.0
"""How many times slower the season of the week and the scatter are forgotten than the level."""
_LEAST_SCATTER = 1.05
_MOST_HIDDEN = 2.0
"""Expected demand is at most so many times what was sold, however often the shelf was empty."""
_FAR = 1.0 - 1e-9
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

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
    assert panel.bound is not None
    fade = 0.5 ** (1.0 / _HALF_LIFE)
    slow = 0.5 ** (1.0 / (_SLOW * _HALF_LIFE))
    n, length = panel.shape
    out = np.zeros((len(rows), length))
    amount, exposure = np.zeros(n), np.zeros(n)
    by_day, usual = np.zeros((n, _WEEK)), np.zeros((n, _WEEK))
    square, expected = np.zeros(n), np.zeros(n)
    sold, square_seen, expected_seen = np.zeros(n), np.zeros(n), np.zeros(n)
    whole = np.ones(n, bool)
    luck = Luck.of(panel)
    for t in range(length):
        place = (panel.start + t) % _WEEK
        pooled = (by_day[:, place].sum() + 1.0) / (usual[:, place].sum() + 1.0)
        index = (by_day[:, place] + 8.0 * pooled) / (usual[:, place] + 8.0)
        known = exposure > 0.5
        level = np.divide(amount, exposure, out=np.zeros(n), where=known)
        # A shelf that is nearly always empty bounds demand from below only: what it hid is held to a multiple of what was sold.
        level = np.minimum(level, _MOST_HIDDEN * np.divide(sold, exposure, out=np.zeros(n), where=known))
        mean = level * index
        seen = panel.observed[:, t].copy()
        in_sight = seen.astype(float)
        value = np.where(seen, panel.y[:, t], 0.0)
        at_least = value.copy()
        here = np.nonzero(hidden[:, t])[0]
        if len(here):
            told = rows[here]
            bound = panel.bound[told, t].astype(float)
            at_least[told] = value[told] = bound  # all that is known of the first periods
            usable = known[told] & (mean[told] > 0)
            told, bound = told[usable], bound[usable]
            if len(told):
                scatter = (square[told] + 10.0) / (expected[told] + 5.0)
                plain = np.maximum((square_seen[told] + 10.0) / (expected_seen[told] + 5.0), 1.0 + mean[told])
                scatter = np.maximum(np.minimum(scatter, plain), _LEAST_SCATTER)
                counts = whole[told] & (bound == np.round(bound))
                value[told] = draw(mean[told], mean[told] * scatter, bound, luck(told, t), counts)
            out[here, t] = value[rows[here]]
            seen[rows[here]] = True
        count = seen.astype(float)
        error = np.where(known, count, 0.0)
        square = slow * square + error * (value - mean) ** 2
        expected = slow * expected + error * mean
        error *= in_sight
        square_seen = slow * square_seen + error * (value - mean) ** 2
        expected_seen = slow * expected_seen + error * mean
        amount = fade * amount + count * value
        sold = fade * sold + count * at_least
        exposure = fade * exposure + count * np.maximum(index, 0.05)
        alive = count * known * (level > 0)
        by_day[:, place] = slow**_WEEK * by_day[:, place] + alive * value / np.maximum(level, 1e-9)
        usual[:, place] = slow**_WEEK * usual[:, place] + alive
        whole &= value == np.round(value)
    return out


def redrawn(rows: Rows, panel: Panel, mean: Array, variance: Array, counts: NDArray[np.bool_]) -> Rows:
    """Training rows whose hidden targets are drawn again, from a distribution that knows what the first draw did not.

    The first draw knows level and weekday of a series; a model knows prices, promotions and all else that made the day a busy
    one (the imputation step of stochastic expectation maximization; Celeux and Diebolt 1985). Targets alone change: what a row
    knew at its origin stays.

    Args:
        rows: Rows (R) built from `panel`.
        panel: The panel after `raised`.
        mean: Expected demand of the rows by the model (R).
        variance: Its variance (R).
        counts: Whether each row is of a count (R).
    """
    hidden = np.nonzero((rows.floor > 0) & (mean > 0) & (variance > 0))[0]
    if not len(hidden):
        return rows
    luck = Luck.of(panel)(rows.series[hidden], rows.origin[hidden] - 1 + rows.horizon[hidden])
    y = rows.y.copy()
    y[hidden] = draw(mean[hidden], variance[hidden], rows.floor[hidden], luck, counts[hidden])
    return replace(rows, y=y)


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
class Luck:
    """Probabilities of series and periods: the same from whatever cut of the history.

    Attributes:
        key: One number a series (n).
        start: Period of the panel's first column.
    """

    key: NDArray[np.uint64]
    start: int

    @classmethod
    def of(cls, panel: Panel) -> Luck:
        """That of a panel."""
        return cls(np.array([zlib.crc32(str(name).encode()) << 20 for name in panel.ids], np.uint64), panel.start)

    def __call__(self, rows: np.ndarray, columns: np.ndarray | int) -> Array:
        """Numbers evenly spread from 0 to 1, of series by row and column of the panel (both of one length, or one column)."""
        # Splitmix64; unsigned arrays wrap around, as it wants.
        z = self.key[rows] + np.atleast_1d(np.asarray(self.start + columns)).astype(np.uint64) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        return np.asarray((z >> np.uint64(11)).astype(float) * 2.0**-53)
