"""How long parts last by their age alone: a Weibull life from parts that failed and parts taken out before.

The rule that replaces at a fixed age, and the fall-back where nothing but ages is known. What sensors say does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npq_assets.equipment.learners import Array
from npq_assets.errors import NpqError

# Lives longer than this are not told apart (days).
LONGEST = 3650.0
LEAST_FAILURES = 3
# Wear-out of mechanical parts usually has a shape between 1 (chance) and 4; weighs like this many failures.
_USUAL_SHAPE, _PRIOR_WEIGHT = 2.0, 2.0


@dataclass(frozen=True)
class Weibull:
    """A life with survival exp(-(t / scale) ** shape).

    Attributes:
        shape: Above 1 parts wear out, at 1 they fail by chance.
        scale: Days that 37 % of parts outlive.
        failures: Failures behind the fit.
    """

    shape: float
    scale: float
    failures: int = 0

    def hazard(self, age: Array) -> Array:
        """Cumulative hazard at an age (days)."""
        return np.asarray((np.maximum(age, 0.0) / self.scale) ** self.shape, float)

    def survival(self, age: Array) -> Array:
        """Share of parts that outlive an age."""
        return np.asarray(np.exp(-self.hazard(age)), float)

    def next_days(self, age: float, days: int) -> Array:
        """Probability of failure on each of the next days of a part that has lived so long (its share of all outcomes)."""
        left = np.exp(-(self.hazard(age + np.arange(days + 1.0)) - self.hazard(np.array(age))))
        return np.asarray(-np.diff(left), float)

    @property
    def mean(self) -> float:
        """Mean life (days)."""
        from scipy.special import gamma

        return float(self.scale * gamma(1.0 + 1.0 / self.shape))


def fit_weibull(days: Array, failed: Array) -> Weibull:
    """Maximum likelihood with censoring (Meeker and Escobar 1998, ch. 8), the shape drawn towards 2 where failures are few.

    Args:
        days: How long each part was in use (above 0).
        failed: 1 where it failed then, 0 where it was taken out or still runs.

    Raises:
        NpqError: Fewer than three failures.
    """
    from scipy.optimize import minimize_scalar

    t, d = np.maximum(np.asarray(days, float), 0.5), np.asarray(failed, float)
    count = int(d.sum())
    if count < LEAST_FAILURES:
        raise NpqError(f"lifetimes: {count} failures on record; {LEAST_FAILURES} are needed")
    log_t = np.log(t)
    top = float(log_t.max())

    def loss(log_shape: float) -> float:
        k = float(np.exp(log_shape))
        # The scale that fits a shape best is known: scale ** k = sum t ** k / failures.
        log_sum = k * top + float(np.log(np.exp(k * (log_t - top)).sum()))
        fit = count * (np.log(k) + np.log(count) - log_sum) + (k - 1.0) * float((d * log_t).sum())
        return -fit + 0.5 * _PRIOR_WEIGHT * (log_shape - np.log(_USUAL_SHAPE)) ** 2

    found = minimize_scalar(loss, bounds=(np.log(0.5), np.log(12.0)), method="bounded")
    k = float(np.exp(found.x))
    scale = float(np.exp(top + np.log(np.exp(k * (log_t - top)).sum() / count) / k))
    return Weibull(round(k, 6), round(scale, 6), count)


def best_interval(life: Weibull, planned: float, failure: float) -> float:
    """The age of replacement of least long-run cost, infinite where none beats waiting for failure.

    Minimizes (planned R(T) + failure (1 - R(T))) / integral of R to T (Barlow and Hunter 1960) over whole days.
    """
    ages = np.arange(1.0, min(LONGEST, 4.0 * life.scale) + 1.0)
    survival = life.survival(ages)
    lived = np.cumsum(np.r_[1.0, survival[:-1]] + survival) / 2.0
    rate = (planned * survival + failure * (1.0 - survival)) / lived
    k = int(rate.argmin())
    return float(ages[k]) if rate[k] < 0.999 * failure / life.mean else float("inf")


def remaining_life(daily: Array, life: Weibull | None, age: float, quantiles: tuple[float, ...]) -> list[float]:
    """Quantiles of the remaining life: the next days as predicted, behind them as parts of that age live.

    Args:
        daily: Probability of failure on each of the next days (their sum is the probability of any).
        life: Life by age; None: nothing is known beyond the days predicted.
        age: Age now (days).
        quantiles: Shares failed, rising.
    """
    known = len(daily)
    failed = np.minimum(np.cumsum(daily), 1.0)
    ahead = np.arange(1.0, LONGEST - known)
    left = 1.0 - failed[-1]
    if life is None:
        tail = np.full(len(ahead), failed[-1])
    else:
        start = life.hazard(np.array(age + known))
        tail = 1.0 - left * np.exp(-(life.hazard(age + known + ahead) - start))
    share = np.r_[0.0, failed, tail]
    return [float(k) if (k := int(np.searchsorted(share, q))) < len(share) else LONGEST for q in quantiles]
