"""The robust simple method: a level per series times seasonal indices, both shrunk where data are few.

It is the forecast where data cannot carry a model, and the offset that LightGBM corrects where they can. Everything is
computed from the columns up to the origin: a training row knows what a forecast on that day would have known.
Learning from covariates does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npq_assets.forecasting.panel import Panel


@dataclass(frozen=True)
class Tuning:
    """Constants of the baseline, in units that do not depend on the data's scale.

    Attributes:
        half_life: Half-life of the level's memory, as a share of a year.
        prior_years: Weight of the long-run mean in the level, in shares of a year.
        pool_all: Pseudo-demand that shrinks the season of all series together towards none.
        season_half_life: Half-life of a season's memory in years.
    """

    half_life: float = 0.15
    prior_years: float = 0.10
    pool_all: float = 3.0
    season_half_life: float = 4.0


@dataclass(frozen=True)
class Baseline:
    """What the simple method knows at an origin.

    Attributes:
        level: Deseasonalised demand per period (n).
        prior: Long-run deseasonalised mean (n).
        scatter: Variance over mean of demand around level times season (n), at least 1 for counts.
        profiles: Per season: positions' index (n, S) of the series, and (S) of all.
        adjusted: History divided by its season (n, T), 0 where not observed.
    """

    level: np.ndarray
    prior: np.ndarray
    scatter: np.ndarray
    seasons: tuple[tuple[int, int], ...]
    profiles: tuple[np.ndarray, ...]
    overall: tuple[np.ndarray, ...]
    adjusted: np.ndarray
    index: np.ndarray

    def season(self, periods: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Seasonal index (n, len(periods)) of period numbers, or of some rows only."""
        out = np.ones((len(self.level) if rows is None else len(rows), len(periods)))
        for (length, width), profile in zip(self.seasons, self.profiles, strict=True):
            position = (periods // width) % length
            out *= profile[:, position] if rows is None else profile[np.ix_(rows, position)]
        return out

    def season_of_all(self, periods: np.ndarray) -> np.ndarray:
        """Seasonal index (len(periods)) of all series together."""
        out = np.ones(len(periods))
        for (length, width), profile in zip(self.seasons, self.overall, strict=True):
            out *= profile[(periods // width) % length]
        return out

    def mean(self, periods: np.ndarray) -> np.ndarray:
        """Expected demand (n, len(periods))."""
        return self.level[:, None] * self.season(periods)


def seasons_of(panel: Panel, season_length: int | None) -> tuple[tuple[int, int], ...]:
    """Seasons as (number of positions, periods per position): the week within days, and the year.

    A given `season_length` that is not the year's replaces the week (days) or the year (else); 1 means none.
    """
    calendar = panel.calendar
    year = (52, 7) if calendar.unit == "D" else (calendar.year, 1)
    if season_length is not None and season_length <= 1:
        return ()
    if calendar.unit == "D":
        short = season_length if season_length and season_length < 300 else 7
        return ((short, 1), year)
    if season_length and season_length != calendar.year:
        return ((season_length, 1),)
    return (year,)


def fit(panel: Panel, seasons: tuple[tuple[int, int], ...], tuning: Tuning) -> Baseline:
    """Fits the simple method on all columns of the panel."""
    y, m = panel.y, panel.observed.astype(float)
    n, length = y.shape
    periods = panel.start + np.arange(length)
    index = np.ones((n, length))
    profiles, overall = [], []
    used: list[tuple[int, int]] = []
    for count, width in seasons:
        span = count * width
        window = span if span >= 26 or length < 4 * span else 4 * span
        if length < span + max(2, span // 12):
            continue
        used.append((count, width))
        level = _centred_mean(y / index, m, window) * index
        scatter = _scatter(y, level, m)
        position = (periods // width) % count
        fade = 0.5 ** (np.arange(length)[::-1] / (tuning.season_half_life * panel.calendar.year))
        whole, profile = _profile(panel, level, scatter, fade, count, width, tuning)
        sharper = _scatter(y, level * profile[:, position], m)
        if np.median(sharper) < 0.8 * np.median(scatter):
            # A strong season looks like noise at first: measured without it, there is more to believe.
            whole, profile = _profile(panel, level, sharper, fade, count, width, tuning)
        profiles.append(profile)
        overall.append(whole)
        index = index * profile[:, position]
    index = np.maximum(index, 1e-3)
    adjusted = np.where(m > 0, y / index, 0.0)
    year = panel.calendar.year
    prior = _weighted_level(y, m, index, 0.5 ** (np.arange(length)[::-1] / (1.0 * year)), 0.0, 0.0)
    weight = 0.5 ** (np.arange(length)[::-1] / max(tuning.half_life * year, 1.0))
    level = _weighted_level(y, m, index, weight, prior, tuning.prior_years * year * 0.5)
    scatter = _scatter(y, level[:, None] * index, m)
    return Baseline(level, prior, scatter, tuple(used), tuple(profiles), tuple(overall), adjusted, index)


def seasonal_naive(panel: Panel, base: Baseline, horizons: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Demand of the same period a year ago times the growth since (n, H); `fallback` (n, H) where that is not known.

    Growth is that of the last quarter over the same quarter a year ago, drawn towards the growth of all series as far as
    a series' own demand is too noisy to tell. For days, whose year repeats only through its weeks, the fallback holds.
    """
    length, year = panel.shape[1], panel.calendar.year
    window = max(2, year // 4)
    if year >= 300 or length < year + window:
        return fallback
    y, m = panel.y, panel.observed
    now, then = slice(length - window, length), slice(length - window - year, length - year)
    both = m[:, now] & m[:, then]
    new = np.maximum((y[:, now] * both).sum(1), 0.0)
    old = np.maximum((y[:, then] * both).sum(1), 0.0)
    pooled = (new / base.scatter).sum() / max((old / base.scatter).sum(), 1e-9) if old.sum() > 0 else 1.0
    pooled = float(np.clip(pooled, 0.5, 2.0))
    lean = 20.0 * base.scatter  # pseudo-demand that stands for the growth of all
    growth = np.clip((new + lean * pooled) / (old + lean), 0.25, 4.0)
    back = length - 1 + horizons - year * np.ceil(horizons / year).astype(int)
    inside = (back >= 0) & (back < length)
    safe = np.clip(back, 0, length - 1)
    known = inside[None, :] & m[:, safe]
    return np.where(known, np.maximum(y[:, safe], 0.0) * growth[:, None], fallback)


def _profile(
    panel: Panel, level: np.ndarray, scatter: np.ndarray, fade: np.ndarray, count: int, width: int, tuning: Tuning
) -> tuple[np.ndarray, np.ndarray]:
    """Seasonal index of all series together (count) and of each (n, count): all, groups, series."""
    amount = np.maximum(_cycles(fade * panel.y * panel.observed / scatter[:, None], panel.start, count, width), 0.0)
    expected = np.maximum(_cycles(fade * level * panel.observed / scatter[:, None], panel.start, count, width), 0.0)
    whole = (amount.sum((0, 1)) + tuning.pool_all) / (expected.sum((0, 1)) + tuning.pool_all)
    profile = np.broadcast_to(whole, (len(level), count))
    for _, codes in sorted(panel.groups.values(), key=lambda g: len(g[0])):
        size = int(codes.max()) + 1
        code = np.where(codes >= 0, codes, size)
        ratio = _shrunk(_sum_by(code, amount, size + 1), _sum_by(code, expected * profile[:, None, :], size + 1))
        ratio[size] = 1.0
        profile = profile * ratio[code]
    return whole, profile * _shrunk(amount, expected * profile[:, None, :])


def _weighted_level(
    y: np.ndarray, m: np.ndarray, index: np.ndarray, weight: np.ndarray, prior: np.ndarray | float, strength: float
) -> np.ndarray:
    # Demand over exposure with a gamma prior: the seasonal index is the exposure of a period.
    amount = (y * m) @ weight + strength * np.asarray(prior)
    exposure = (index * m) @ weight + strength
    return np.divide(amount, exposure, out=np.zeros(len(y)), where=exposure > 0)


def _centred_mean(y: np.ndarray, m: np.ndarray, window: int) -> np.ndarray:
    """Mean of observed demand in a window of fixed length around each period, moved inwards at the edges."""
    n, length = y.shape
    window = min(window, length)
    low = np.clip(np.arange(length) - window // 2, 0, length - window)
    total = np.concatenate([np.zeros((n, 1)), np.cumsum(y * m, 1)], 1)
    count = np.concatenate([np.zeros((n, 1)), np.cumsum(m, 1)], 1)
    seen = count[:, low + window] - count[:, low]
    # An empty or thin window leans on the series' whole mean.
    whole = np.divide(total[:, -1:], count[:, -1:], out=np.zeros((n, 1)), where=count[:, -1:] > 0)
    lean = 0.05 * window
    return (total[:, low + window] - total[:, low] + lean * whole) / (seen + lean)


def _scatter(y: np.ndarray, mean: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Variance over mean per series, shrunk towards the median of all."""
    square = np.where(m > 0, (y - mean) ** 2, 0.0).sum(1)
    expected = (np.abs(mean) * m).sum(1)
    count = m.sum(1)
    own = np.divide(square, expected, out=np.ones(len(y)), where=expected > 0)
    positive = own[(expected > 0) & (count >= 4)]
    middle = float(np.median(positive)) if len(positive) else 1.0
    blend = (count * own + 5 * np.maximum(own, 1e-9) ** 0.5 * middle**0.5) / (count + 5)
    return np.maximum(blend, 1e-6)


def _cycles(values: np.ndarray, start: int, count: int, width: int, most: int = 4) -> np.ndarray:
    """Sums by (series, cycle, position); many cycles are joined into `most` blocks."""
    n, length = values.shape
    span = count * width
    before = start % span
    after = -(before + length) % span
    padded = np.concatenate([np.zeros((n, before)), values, np.zeros((n, after))], 1)
    cycles = padded.reshape(n, -1, count, width).sum(3)
    if cycles.shape[1] <= most + 1:
        return cycles
    edges = np.linspace(0, cycles.shape[1], most + 1).astype(int)[:-1]
    return np.add.reduceat(cycles, edges, axis=1)


def _sum_by(code: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((size, *values.shape[1:]))
    np.add.at(out, code, values)
    return out


def _shrunk(amount: np.ndarray, exposure: np.ndarray) -> np.ndarray:
    """Season of units relative to what was expected (u, count), drawn to 1 as far as units' own seasons fail to repeat.

    Empirical Bayes: of the spread of units around their parents, the part that repeats from cycle to cycle (the
    covariance between cycles, position by position) is season; the rest is noise.

    Args:
        amount: Demand over scatter by unit, cycle and position.
        exposure: The same as the parent's season would have it.
    """
    excess = amount - exposure
    total, lean = exposure.sum(1), excess.sum(1)
    square = (total**2).sum(0) - (exposure**2).sum((0, 1))
    cross = (lean**2).sum(0) - (excess**2).sum((0, 1))
    repeat = np.divide(cross, square, out=np.zeros_like(cross), where=square > 1e-9)
    spread = np.divide(
        (excess**2).sum((0, 1)) - exposure.sum((0, 1)),
        (exposure**2).sum((0, 1)),
        out=np.zeros_like(cross),
        where=total.sum(0) > 1e-9,
    )
    if square.sum() <= 1e-9:  # a single cycle shows no repetition: believe a part of the spread
        repeat = 0.3 * np.maximum(spread, 0.0)
    average = max(float((repeat * total.sum(0)).sum() / max(total.sum(), 1e-9)), 0.0)
    repeat = np.clip(0.8 * repeat + 0.2 * average, 1e-6, 4.0)
    passing = np.clip(spread - repeat, 0.0, 8.0)
    # Cycles are noisy replicates: demand's own noise (1/exposure) plus what passes with the cycle.
    weight = exposure / (1.0 + passing * exposure)
    precision = weight.sum(1)
    mean = np.divide(amount, exposure, out=np.ones_like(amount), where=exposure > 1e-9)
    ratio = ((weight * mean).sum(1) + 1.0 / repeat) / (precision + 1.0 / repeat)
    return np.maximum(ratio, 1e-3)
