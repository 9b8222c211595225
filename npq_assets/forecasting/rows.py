"""Training rows: what was known at an origin, and what came of it; leakage is impossible by construction.

An origin is a number of periods: features look at the columns before it, targets lie behind it. Models do not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npq_assets.forecasting import baseline, features
from npq_assets.forecasting.baseline import Tuning
from npq_assets.forecasting.panel import Panel

_ARRAYS = ("x", "y", "base", "level", "naive", "scatter", "series", "origin", "horizon", "floor")


@dataclass(frozen=True)
class Rows:
    """Rows (R) of features and targets.

    Attributes:
        x: Features (R, F), float32.
        y: Demand that came (R).
        base: What the seasonal mean expected (R).
        level: Deseasonalised level at the origin (R).
        naive: What the seasonal naive method with growth expected (R).
        scatter: Variance over mean of the series at the origin (R).
        series: Row number of the series in the panel (R).
        origin: Periods known (R).
        horizon: Periods ahead, 1 = next (R).
        floor: What was sold where an empty shelf hid demand, so that `y` is a draw; else 0 (R).
        names: Names of the F features.
    """

    x: np.ndarray
    y: np.ndarray
    base: np.ndarray
    level: np.ndarray
    naive: np.ndarray
    scatter: np.ndarray
    series: np.ndarray
    origin: np.ndarray
    horizon: np.ndarray
    floor: np.ndarray
    names: list[str]

    def take(self, keep: np.ndarray) -> Rows:
        """The rows that `keep` selects."""
        return Rows(**{name: getattr(self, name)[keep] for name in _ARRAYS}, names=self.names)


def build(
    panel: Panel,
    seasons: tuple[tuple[int, int], ...],
    tuning: Tuning,
    origins: np.ndarray,
    reach: int,
    end: int,
    max_rows: int,
    rng: np.random.Generator,
) -> Rows | None:
    """Rows from origins, with targets observed before column `end`; a random share of series where they are too many.

    Returns:
        None where no origin has a target that was observed.
    """
    share = min(1.0, max_rows / max(1, len(origins) * panel.shape[0] * reach))
    parts = []
    for origin in origins:
        horizons = np.arange(1, min(reach, end - origin) + 1)
        if not len(horizons):
            continue
        part = _at(panel.until(int(origin)), panel, seasons, tuning, int(origin), horizons, share, rng)
        if part is not None:
            parts.append(part)
    if not parts:
        return None
    stacked = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    return Rows(**stacked, names=parts[0].names)


def _at(
    past: Panel,
    panel: Panel,
    seasons: tuple[tuple[int, int], ...],
    tuning: Tuning,
    origin: int,
    horizons: np.ndarray,
    share: float,
    rng: np.random.Generator,
) -> Rows | None:
    base = baseline.fit(past, seasons, tuning)
    alive = (past.observed.sum(1) >= 4) & (base.level > 0)
    rows = np.nonzero(alive)[0]
    if share < 1.0 and len(rows):
        rows = np.sort(rng.choice(rows, max(1, int(np.ceil(share * len(rows)))), replace=False))
    if not len(rows):
        return None
    x, names = features.build(past, base, horizons, rows)
    target = origin - 1 + horizons
    periods = panel.start + target
    seen = panel.observed[np.ix_(rows, target)].reshape(-1)
    mean = base.mean(periods)
    naive = baseline.seasonal_naive(past, base, horizons, mean)[rows].reshape(-1)
    mean = mean[rows].reshape(-1)
    keep = seen & (mean > 0)
    steps = len(horizons)
    floor = np.zeros(len(keep)) if panel.bound is None else panel.bound[np.ix_(rows, target)].reshape(-1)
    return Rows(
        x[keep],
        panel.y[np.ix_(rows, target)].reshape(-1)[keep],
        mean[keep],
        np.repeat(base.level[rows], steps)[keep],
        naive[keep],
        np.repeat(base.scatter[rows], steps)[keep],
        np.repeat(rows, steps)[keep],
        np.full(int(keep.sum()), origin),
        np.tile(horizons, len(rows))[keep],
        floor[keep].astype(float),
        names,
    )


def spaced(first: int, last: int, most: int) -> np.ndarray:
    """Origins from `first` to `last` - 1: at most about `most`, evenly spaced back from the last."""
    origins = np.arange(first, last)
    step = max(1, int(np.ceil(len(origins) / most)))
    return origins[::-1][::step][::-1]
