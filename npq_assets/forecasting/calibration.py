"""How wide forecasts are: a variance fitted to held-out errors, and a shape that makes the levels true.

The variance of measured demand is log-linear in the series' scatter, mean and horizon; that of counts is the negative
binomial's by likelihood. The shape is conformal: held-out probability transforms recalibrate the levels by segment
(Kuleshov et al. 2018). The centre does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from npq_assets.forecasting import forms
from npq_assets.forecasting.distribution import Dependence
from npq_assets.forecasting.rows import Rows

LEVELS = np.concatenate([[0.0, 0.002, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.998, 1.0]])
_PRIOR_VARIANCE = (0.0, 0.7, 0.0, 0.0)
_PRIOR_EXCESS = (-1.0, 0.5, 0.5, 0.0)
_FIRST_MEASURED = 5


@dataclass(frozen=True)
class Calibration:
    """Spread and shape.

    Attributes:
        variance: Coefficients of the log-linear variance of measured demand.
        excess: Coefficients of the log-linear excess of a count's variance over its mean.
        shape: Per segment (see forms.SEGMENTS), calibrated probability (counts) or residual quantiles (S, K).
        dependence: What links scenarios.
    """

    variance: tuple[float, ...] = _PRIOR_VARIANCE
    excess: tuple[float, ...] = _PRIOR_EXCESS
    shape: np.ndarray | None = None
    dependence: Dependence = field(default_factory=Dependence)

    def variance_of(self, mean: np.ndarray, scatter: np.ndarray, horizon: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Variance of demand; all arrays broadcast."""
        size = np.maximum(np.abs(mean), 1e-9)
        x = _features(size, scatter, horizon.astype(float))
        measured = size * np.exp(np.clip(x @ np.array(self.variance), -20, 20))
        return np.where(counts, size * (1.0001 + np.exp(np.clip(x @ np.array(self.excess), -8, 8))), measured)


def default_shape() -> np.ndarray:
    """Shape before any evidence: nominal levels for counts, the normal distribution for measured demand (S, K)."""
    size = len(forms.SEGMENTS)
    return np.stack([LEVELS] * _FIRST_MEASURED + [_normal()] * (size - _FIRST_MEASURED))


def calibrate(rows: Rows, mean: np.ndarray, counts: np.ndarray) -> Calibration:
    """Fits spread, shape and dependence to held-out rows.

    Args:
        rows: Held-out rows (R).
        mean: What was forecast for them without having seen them (R).
        counts: Whether each row is of a count (R).
    """
    from scipy import special

    keep = _ordinary(rows, mean) | ~counts
    rows, mean, counts = rows.take(keep), mean[keep], counts[keep]
    fitted = Calibration(
        _fit_variance(rows.y, mean, rows.scatter, rows.horizon, ~counts),
        _fit_excess(rows.y, mean, rows.scatter, rows.horizon, counts),
    )
    variance = fitted.variance_of(mean, rows.scatter, rows.horizon, counts)
    segment = forms.segment_of(mean, rows.scatter, counts)
    shape = default_shape()
    u = np.full(len(mean), 0.5)
    if counts.any():
        u[counts] = randomized_transform(rows.y[counts], mean[counts], variance[counts], np.random.default_rng(12345))
        shape[:_FIRST_MEASURED] = _shapes(u, segment, counts, range(_FIRST_MEASURED), LEVELS, 300)
        shape[:_FIRST_MEASURED, 0], shape[:_FIRST_MEASURED, -1] = 0.0, 1.0
    measured = ~counts
    if measured.sum() >= 30:
        z = (rows.y - mean) / np.sqrt(variance)
        shape[_FIRST_MEASURED:] = _shapes(
            z, segment, measured, range(_FIRST_MEASURED, len(forms.SEGMENTS)), _normal(), 100
        )
        rank = np.argsort(np.argsort(z[measured], kind="stable"), kind="stable")
        u[measured] = np.clip((rank + 0.5) / measured.sum(), 1e-4, 1 - 1e-4)
    normal = special.ndtri(np.clip(u, 1e-4, 1 - 1e-4))
    return Calibration(fitted.variance, fitted.excess, shape, _dependence(normal, rows))


def _ordinary(rows: Rows, mean: np.ndarray) -> np.ndarray:
    """Drops most rows of periods that surprised all series alike.

    A peak seen for the first time says little about the periods to come: such periods count for less, so that one does
    not widen or shift every later forecast.
    """
    period = rows.origin + rows.horizon
    luck = np.log(
        (np.bincount(period, rows.y / rows.scatter).clip(0) + 5.0) / (np.bincount(period, mean / rows.scatter) + 5.0)
    )
    middle = float(np.median(luck[np.unique(period)]))
    draw = np.random.default_rng(54321).random(len(period))
    return np.asarray(draw < 1.0 / (1.0 + ((luck[period] - middle) / 0.15) ** 2))


def _shapes(
    values: np.ndarray, segment: np.ndarray, mine: np.ndarray, segments: range, prior: np.ndarray, strength: float
) -> np.ndarray:
    """Quantiles of held-out transforms by segment, each drawn to those of all, those to the prior."""
    total = int(mine.sum())
    pooled = prior
    if total >= 30:
        trust = total / (total + strength)
        pooled = trust * np.quantile(values[mine], LEVELS) + (1 - trust) * prior
    out = []
    for s in segments:
        here = values[mine & (segment == s)]
        trust = len(here) / (len(here) + 300)
        own = np.quantile(here, LEVELS) if len(here) >= 30 else pooled
        out.append(np.maximum.accumulate(trust * own + (1 - trust) * pooled))
    return np.stack(out)


def _normal() -> np.ndarray:
    from scipy import special

    return special.ndtri(np.clip(LEVELS, 0.0005, 0.9995))


def _features(mean: np.ndarray, scatter: np.ndarray, horizon: np.ndarray) -> np.ndarray:
    mean, scatter, horizon = np.broadcast_arrays(mean, scatter, horizon)
    return np.stack([np.ones(mean.shape), np.log(scatter), np.log(mean / scatter), np.log(horizon)], -1)


def _fit_variance(
    y: np.ndarray, mean: np.ndarray, scatter: np.ndarray, horizon: np.ndarray, use: np.ndarray
) -> tuple[float, ...]:
    """Gamma regression with log link of squared errors over the mean (iteratively reweighted least squares)."""
    prior = np.array([0.0, 1.0, 0.0, 0.0])
    if use.sum() < 30:
        return tuple(map(float, prior))
    y, mean, scatter, horizon = y[use], mean[use], scatter[use], horizon[use]
    x = _features(np.maximum(np.abs(mean), 1e-9), scatter, horizon.astype(float))
    target = (y - mean) ** 2 / np.maximum(np.abs(mean), 1e-9)
    b = prior.copy()
    strength = np.diag([5.0, 20.0, 20.0, 20.0])
    for _ in range(25):
        eta = np.clip(x @ b, -20, 20)
        ratio = np.minimum(target * np.exp(-eta), 25.0)
        step = np.linalg.solve(x.T @ x + strength, x.T @ (ratio - 1.0) - strength @ (b - prior))
        step = np.clip(step, -1.0, 1.0)
        b = b + step
        if np.abs(step).max() < 1e-8:
            break
    return tuple(float(v) for v in np.round(b, 9))


def _fit_excess(
    y: np.ndarray,
    mean: np.ndarray,
    scatter: np.ndarray,
    horizon: np.ndarray,
    use: np.ndarray,
    most: int = 15_000,
) -> tuple[float, ...]:
    """Maximum likelihood of the negative binomial whose variance is mean * (1 + exp(coefficients . x)).

    Likelihood, unlike squared errors, is not carried away by a few bursts.
    """
    from scipy import optimize, special

    prior = np.array(_PRIOR_EXCESS)
    rows = np.nonzero(use)[0]
    if len(rows) < 100:
        return tuple(map(float, prior))
    rows = rows[:: max(1, len(rows) // most)]
    y, mean = y[rows], np.maximum(mean[rows], 1e-6)
    x = _features(mean, scatter[rows], horizon[rows].astype(float))

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        eta = np.clip(x @ b, -8, 8)
        excess = np.exp(eta)
        size = mean / excess
        value = (
            special.gammaln(y + size) - special.gammaln(size) - size * np.log1p(excess) + y * (eta - np.log1p(excess))
        )
        slope = (
            -size * (special.digamma(y + size) - special.digamma(size) - np.log1p(excess))
            - mean / (1 + excess)
            + y / (1 + excess)
        )
        lean = np.array([1.0, 20.0, 20.0, 20.0])
        return float(-value.sum() + (lean * (b - prior) ** 2).sum()), -(slope @ x) + 2 * lean * (b - prior)

    found = optimize.minimize(loss, prior, jac=True, method="L-BFGS-B", options={"maxiter": 60})
    return tuple(float(v) for v in np.round(found.x, 9))


def randomized_transform(y: np.ndarray, mean: np.ndarray, variance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Probability transform of counts, spread evenly over each count's mass (uniform if the distribution is right)."""
    from scipy import stats

    size, p = mean**2 / (variance - mean), mean / variance
    high, low = stats.nbinom.cdf(y, size, p), stats.nbinom.cdf(y - 1, size, p)
    return low + (high - low) * rng.random(len(y))


def _dependence(z: np.ndarray, rows: Rows) -> Dependence:
    """Moments of the held-out normal scores: along the horizon within a series, and across series within a period."""
    z = (z - z.mean()) / max(z.std(), 1e-9)
    # Plain numpy: sums in a fixed order, so that the same inputs give the same bytes.
    span = int(rows.horizon.max()) + 8
    cell = rows.origin * span + rows.horizon
    key = rows.series * (int(cell.max()) + span) + cell
    order = np.argsort(key, kind="stable")
    key, scores = key[order], z[order]
    near: list[float] = []
    far: list[float] = []
    for lag in (1, 2, 3, 4):
        place = np.minimum(np.searchsorted(key, key + lag), len(key) - 1)
        found = key[place] == key + lag
        if found.sum() >= 50:
            (near if lag == 1 else far).append(float((scores[found] * scores[place[found]]).mean()))
    lasting = float(np.clip(np.mean(far), 0.0, 0.9)) if far else 0.1
    first = float(np.clip(near[0], lasting, 0.95)) if near else max(lasting, 0.2)
    count, total = np.bincount(cell), np.bincount(cell, z)
    weight, mean = count[count >= 5].astype(float), total[count >= 5] / count[count >= 5]
    common = float(np.clip(np.average(mean**2 - 1.0 / weight, weights=weight), 0.0, 0.8)) if len(weight) >= 3 else 0.0
    fading = (first - lasting) / max(1e-9, 1 - lasting)
    return Dependence(round(lasting, 6), round(fading, 6), round(common, 6))
