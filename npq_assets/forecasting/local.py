"""Local methods for few, long, smooth series: exponential smoothing and Theta, one model a series (statsforecast).

They join the ensemble where a series carries a model of its own; where there are thousands of series, or demand comes in
single units, they cost more than they bring and are left out. Choosing between methods does not belong here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npq_assets.forecasting.panel import Panel

NAMES = ("ets", "theta")
MAX_POINTS = 100_000
MAX_SEASON = 24
_THETA_YEARS = 10
_MIN_MEAN = 10.0
_MIN_SEASONS = 3


def applies(panel: Panel, seasons: tuple[tuple[int, int], ...]) -> bool:
    """Whether the panel is one for local methods: small, one short season, hardly a gap, no low counts."""
    n, length = panel.shape
    season = season_of(panel, seasons)
    if n * length > MAX_POINTS or season > MAX_SEASON or length < _MIN_SEASONS * season + 4:
        return False
    alive = np.arange(length)[None, :] >= panel.first[:, None]
    seen = panel.observed if panel.bound is None else panel.observed & (panel.bound <= 0)  # a draw is a gap too
    gaps = 1.0 - seen.sum() / max(1, alive.sum())
    return gaps <= 0.02 and float(np.median(panel.y.sum(1) / np.maximum(panel.observed.sum(1), 1))) >= _MIN_MEAN


def season_of(panel: Panel, seasons: tuple[tuple[int, int], ...]) -> int:
    """The season that local methods use: the shortest, 1 where there is none."""
    return min((count * width for count, width in seasons), default=1)


def predict(panel: Panel, seasons: tuple[tuple[int, int], ...], horizon: int, fallback: np.ndarray) -> np.ndarray:
    """Point forecasts (2, n, H) of exponential smoothing and Theta; `fallback` (n, H) where a method gives no answer."""
    season = season_of(panel, seasons)
    out = np.stack([fallback, fallback])
    for row in range(panel.shape[0]):
        seen = np.nonzero(panel.observed[row])[0]
        if len(seen) < 2 * season + 4:
            continue
        y = np.interp(np.arange(seen[0], panel.shape[1]), seen, panel.y[row, seen])
        limit = 10.0 * max(float(np.abs(y).max()), 1e-9)
        for method, model in enumerate(_models(season)):
            recent = y if method == 0 else y[-_THETA_YEARS * max(season, 12) :]
            try:
                found = np.asarray(model.forecast(y=recent, h=horizon)["mean"], float)
            except (ValueError, ZeroDivisionError, FloatingPointError, RuntimeError, np.linalg.LinAlgError):
                continue  # a method that cannot fit a series leaves it to the others
            if np.isfinite(found).all() and np.abs(found).max() <= limit:
                out[method, row] = found
    return out


def _models(season: int) -> tuple[Any, ...]:
    from statsforecast.models import AutoETS, AutoTheta

    shape = "ZAA" if season > 1 else "ZAN"
    return AutoETS(season_length=season, model=shape), AutoTheta(season_length=season)
