"""Forecast distributions: what a model says about every series and period, as quantiles, sums and scenarios.

How the distributions are fitted does not belong here.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import polars as pl
from scipy import special, stats

from npq_assets.errors import NpqError

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
HAIR = 0.01  # how far a count's quantile lies off the whole number
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Dependence:
    """Gaussian copula over (series, period): what links scenarios.

    Attributes:
        lasting: Correlation between any two periods of a series (the level was misjudged).
        fading: Further correlation of neighbouring periods, falling by this factor a period.
        common: Share of variance that all series have in common in a period.
    """

    lasting: float = 0.1
    fading: float = 0.2
    common: float = 0.0


@dataclass(frozen=True)
class ForecastDistribution:
    """Distribution of demand of n series in H periods.

    Counts: negative binomial with this mean and variance; other demand: mean + sd * standard residual. `shape` turns
    nominal into calibrated probability (counts) or gives the residual's quantiles (other demand).

    Attributes:
        ids: Series (n).
        dates: Periods (H), pl.Date.
        cutoff: Last period of the history.
        mean: Expected demand (n, H).
        sd: Standard deviation (n, H).
        counts: Whether the series' demand is a count (n).
        signed: Whether the series' demand may be negative (n).
        levels: Probabilities of the columns of `shape` (K).
        shape: Per calibration segment, increasing values (S, K).
        segment: Segment of each series and period (n, H).
        method: What made the forecast, per series (n).
        version: Version of the model.
        dependence: What links scenarios.
    """

    ids: np.ndarray
    dates: pl.Series
    cutoff: date
    mean: np.ndarray
    sd: np.ndarray
    counts: np.ndarray
    signed: np.ndarray
    levels: np.ndarray
    shape: np.ndarray
    segment: np.ndarray
    method: np.ndarray
    version: str = ""
    dependence: Dependence = field(default_factory=Dependence)

    @property
    def horizon(self) -> int:
        """Number of periods ahead."""
        return int(self.mean.shape[1])

    def quantile(self, u: np.ndarray) -> np.ndarray:
        """Demand at probabilities `u`, of shape (n, m, H) or broadcastable to it."""
        u = np.asarray(u, float)
        shape = np.broadcast_shapes(u.shape, (len(self.ids), 1, self.horizon))
        u = np.broadcast_to(u, shape)
        out = np.empty(shape)
        step = max(1, _CHUNK // max(1, shape[1] * shape[2]))
        for low in range(0, shape[0], step):
            part = slice(low, min(low + step, shape[0]))
            out[part] = self._quantile(u[part], part)
        return out

    def _quantile(self, u: np.ndarray, rows: slice) -> np.ndarray:
        mean, sd = self.mean[rows][:, None, :], self.sd[rows][:, None, :]
        shaped = self._calibrated(u, rows)
        out = np.empty(u.shape)
        counts = self.counts[rows]
        if counts.any():
            out[counts] = negative_binomial_quantile(
                np.clip(shaped[counts], 0.0, 1 - 1e-9), mean[counts], sd[counts] ** 2
            )
        if not counts.all():
            real = ~counts
            values = mean[real] + sd[real] * shaped[real]
            floor = np.where(self.signed[rows][real], -np.inf, 0.0)[:, None, None]
            out[real] = np.maximum(values, floor)
        return out

    def frame(self, quantiles: Sequence[float] = QUANTILES) -> pl.DataFrame:
        """The forecast frame: unique_id, ds, cutoff, method, mean and one column `q…` a quantile, sorted.

        Quantiles of counts are those of `limits`: a hair above or below the whole number.

        Raises:
            NpqError: A quantile is not between 0 and 1.
        """
        table = self._long(self.dates, self.horizon)
        return table.with_columns(
            pl.Series("mean", self.expected().reshape(-1)),
            *quantile_columns(self.limits(check_quantiles(quantiles)), quantiles),
        )

    def expected(self) -> np.ndarray:
        """Expected demand (n, H): the centre, moved by the mean of the calibrated residual where demand is measured."""
        weight = np.gradient(self.levels)
        inner = (self.levels >= 0.01) & (self.levels <= 0.99)
        shift = (self.shape[:, inner] * weight[inner]).sum(1) / weight[inner].sum()
        moved = self.mean + self.sd * shift[self.segment]
        moved = np.where(self.signed[:, None], moved, np.maximum(moved, 0.0))
        return np.where(self.counts[:, None], self.mean, moved)

    def limits(self, levels: np.ndarray) -> np.ndarray:
        """Quantiles (n, K, H) whose coverage is exact also for counts.

        A whole number holds a lump of probability, so that an interval between whole numbers covers more than was
        asked. As in smoothed conformal prediction (Vovk, Gammerman & Shafer 2005, sec. 2.2), the lump is split at
        random: the quantile lies `HAIR` above the whole number for the share of rows for which it should be covered
        from above, and `HAIR` below it for the others. The draw depends on the series' name and the step alone.
        """
        shape = (len(self.ids), len(levels), self.horizon)
        wanted = np.broadcast_to(np.asarray(levels, float)[None, :, None], shape)
        out = self.quantile(wanted)
        rows = np.nonzero(self.counts & (self.mean.max(1) > 0) & (self.method != "constant"))[0]
        if not len(rows):
            return out
        draw = (
            (np.array([zlib.crc32(str(name).encode()) / 2.0**32 for name in self.ids[rows]])[:, None])
            + (np.arange(1, self.horizon + 1) * 0.6180339887498949)[None, :]
        )
        draw = (draw % 1.0)[:, None, :]
        step = max(1, _CHUNK // max(1, shape[1] * shape[2]))
        for low in range(0, len(rows), step):
            part = rows[low : low + step]
            k, u = out[part], self._calibrated(wanted[part], part)
            mean = np.maximum(self.mean[part], 1e-9)[:, None, :]
            variance = np.maximum(self.sd[part][:, None, :] ** 2, mean * (1 + 1e-6))
            size, p = mean**2 / (variance - mean), mean / variance
            high = special.betainc(size, k + 1.0, p)
            under = np.where(k > 0, special.betainc(size, np.maximum(k, 1.0), p), 0.0)
            share = np.clip((u - under) / np.maximum(high - under, 1e-12), 0.0, 1.0)
            known = self.mean[part][:, None, :] > 0
            moved = np.maximum(np.where(draw[low : low + step] < share, k + HAIR, k - HAIR), 0.0)
            out[part] = np.where(known, np.maximum.accumulate(moved, axis=1), k)
        return out

    def _calibrated(self, u: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        segment = np.broadcast_to(self.segment[rows][:, None, :], u.shape)
        shaped = np.empty(u.shape)
        for s in np.unique(segment):
            here = segment == s
            shaped[here] = np.interp(u[here], self.levels, self.shape[s])
        return shaped

    def _long(self, dates: pl.Series, horizon: int) -> pl.DataFrame:
        n = len(self.ids)
        return pl.DataFrame(
            {
                "unique_id": pl.Series(np.repeat(self.ids, horizon).astype(str)),
                "ds": pl.Series(np.tile(dates.to_numpy(), n)).cast(pl.Date),
                "cutoff": pl.Series([self.cutoff], dtype=pl.Date).new_from_index(0, n * horizon),
                "method": pl.Series(np.repeat(self.method, horizon).astype(str)),
            }
        )

    def paths(self, n_samples: int, seed: int = 0) -> np.ndarray:
        """Coherent scenarios (n, n_samples, H): each sample is one possible future of all series.

        Marginals are the forecast's, stratified over the samples so that few samples already keep mean and tails.
        """
        n, horizon = self.mean.shape
        rng = np.random.default_rng(seed)
        d = self.dependence
        lag = np.abs(np.subtract.outer(np.arange(horizon), np.arange(horizon)))
        own = d.lasting + (1 - d.lasting) * np.where(lag == 0, 1.0, d.fading**lag)
        root = np.linalg.cholesky(own + 1e-9 * np.eye(horizon))
        common = rng.standard_normal((1, n_samples, horizon)) @ root.T
        out = np.empty((n, n_samples, horizon))
        step = max(1, _CHUNK // max(1, n_samples * horizon))
        strata = (np.arange(n_samples) + 0.5) / n_samples
        for low in range(0, n, step):
            part = slice(low, min(low + step, n))
            z = rng.standard_normal((part.stop - low, n_samples, horizon)) @ root.T
            z = np.sqrt(d.common) * common + np.sqrt(1 - d.common) * z
            rank = z.argsort(1, kind="stable").argsort(1, kind="stable")
            out[part] = self._quantile(strata[rank], part)
        return out

    def path_frame(self, n_samples: int, seed: int = 0) -> pl.DataFrame:
        """Scenarios in long form: unique_id, sample, ds, value."""
        values = self.paths(n_samples, seed)
        n, samples, horizon = values.shape
        return pl.DataFrame(
            {
                "unique_id": pl.Series(np.repeat(self.ids, samples * horizon).astype(str)),
                "sample": np.tile(np.repeat(np.arange(samples), horizon), n),
                "ds": pl.Series(np.tile(self.dates.to_numpy(), n * samples)).cast(pl.Date),
                "value": values.reshape(-1),
            }
        )

    def cumulative(self, quantiles: Sequence[float] = QUANTILES, n_samples: int = 1000, seed: int = 0) -> pl.DataFrame:
        """Demand summed from the first period through each ds: the frame for a protection interval of that length."""
        levels = check_quantiles(quantiles)
        n, horizon = self.mean.shape
        values = np.empty((n, len(levels), horizon))
        step = max(1, 8 * _CHUNK // max(1, n_samples * horizon))
        whole = self.paths(n_samples, seed) if n <= step else None
        if whole is None:  # bounded memory: the scenarios are needed a block of series at a time only
            for low in range(0, n, step):
                part = slice(low, min(low + step, n))
                values[part] = np.quantile(
                    self.select(part).paths(n_samples, seed).cumsum(2), levels, axis=1, method="inverted_cdf"
                ).transpose(1, 0, 2)
        else:
            values = np.quantile(whole.cumsum(2), levels, axis=1, method="inverted_cdf").transpose(1, 0, 2)
        table = self._long(self.dates, horizon)
        return table.with_columns(
            pl.Series("mean", self.mean.cumsum(1).reshape(-1)), *quantile_columns(values, quantiles)
        )

    def select(self, rows: slice | np.ndarray) -> ForecastDistribution:
        """The distribution of some of the series."""
        return ForecastDistribution(
            self.ids[rows],
            self.dates,
            self.cutoff,
            self.mean[rows],
            self.sd[rows],
            self.counts[rows],
            self.signed[rows],
            self.levels,
            self.shape,
            self.segment[rows],
            self.method[rows],
            self.version,
            self.dependence,
        )


def check_quantiles(quantiles: Sequence[float]) -> np.ndarray:
    """Quantile levels as an array.

    Raises:
        NpqError: None, or one outside (0, 1).
    """
    levels = np.asarray(list(quantiles), float)
    if not len(levels) or not ((levels > 0) & (levels < 1)).all():
        raise NpqError(f"quantiles {list(quantiles)!r} must lie between 0 and 1")
    return levels


def quantile_columns(values: np.ndarray, quantiles: Sequence[float]) -> list[pl.Series]:
    """Columns `q0.05` … from values (n, K, H)."""
    return [pl.Series(f"q{q:g}", np.ascontiguousarray(values[:, k, :]).reshape(-1)) for k, q in enumerate(quantiles)]


def negative_binomial_quantile(u: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Smallest integer with cumulative probability >= u under a negative binomial (Poisson where variance <= mean).

    Small means are inverted on a table of probabilities, large ones through the Cornish-Fisher expansion, both exact to
    the precision that a forecast has.

    Args:
        u: Probabilities (n, m, H).
        mean: (n, 1, H).
        variance: (n, 1, H).
    """
    mean = np.maximum(mean, 0.0)
    variance = np.maximum(variance, mean * (1 + 1e-6))
    out = np.zeros(u.shape)
    mu, var = mean[:, 0, :], variance[:, 0, :]
    reach = mu + 12 * np.sqrt(var) + 12
    small = (reach <= 400) & (mu > 1e-12)
    large = (reach > 400) & (mu > 1e-12)
    if small.any():
        for limit in (24, 60, 150, 400):
            here = small & (reach <= limit) & ~(reach <= {24: 0, 60: 24, 150: 60, 400: 150}[limit])
            if not here.any():
                continue
            i, h = np.nonzero(here)
            cdf = _negative_binomial_cdf(mu[i, h], var[i, h], limit)
            wanted = u[i, :, h]
            # Counting table entries below u equals the quantile; rows are offset so that one searchsorted serves all.
            flat = (cdf + 2.0 * np.arange(len(i))[:, None]).reshape(-1)
            position = np.searchsorted(
                flat, (wanted + 2.0 * np.arange(len(i))[:, None] - 1e-12).reshape(-1), side="left"
            )
            k = position.reshape(wanted.shape) - (limit + 1) * np.arange(len(i))[:, None]
            out[i, :, h] = np.clip(k, 0, limit)
    if large.any():
        i, h = np.nonzero(large)
        m, v = mu[i, h][:, None], var[i, h][:, None]
        # A gamma with the same mean and variance, halfway corrected, is a negative binomial to within one unit here.
        scale = np.maximum(v / m, 1e-9)
        out[i, :, h] = np.maximum(np.round(stats.gamma.ppf(u[i, :, h], m / scale, scale=scale)), 0.0)
    return out


def _negative_binomial_cdf(mean: np.ndarray, variance: np.ndarray, limit: int) -> np.ndarray:
    size = mean**2 / (variance - mean)
    k = np.arange(limit + 1)[None, :]
    size, p = size[:, None], (mean / variance)[:, None]
    log = (
        special.gammaln(k + size) - special.gammaln(size) - special.gammaln(k + 1) + size * np.log(p) + k * np.log1p(-p)
    )
    return np.minimum(np.cumsum(np.exp(log), axis=1), 1.0)
