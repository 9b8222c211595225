"""The classical closed-form customer models: BG/NBD for visits, gamma-gamma for what a visit is worth.

They need four numbers a customer and a second to fit, and any learned model must beat them to be used (see `value`).
Sources: Fader, Hardie and Lee (2005), "Counting Your Customers" the Easy Way; Fader and Hardie (2013), The Gamma-Gamma
Model of Monetary Value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BetaGeometric:
    """BG/NBD: Poisson visits at a gamma rate; after each visit the customer leaves with a beta probability.

    Attributes:
        r: Shape of the gamma distribution of visit rates.
        alpha: Its rate (days).
        a: First parameter of the beta distribution of leaving.
        b: Second parameter.
    """

    r: float
    alpha: float
    a: float
    b: float

    def alive(self, x: Floats, t_x: Floats, age: Floats) -> Floats:
        """P(still active | x, t_x, T) (Fader, Hardie and Lee 2008, note on P(alive), eq. 7); 1 without a repeat visit."""
        log_ratio = (self.r + x) * np.log((self.alpha + age) / (self.alpha + t_x))
        log_ratio += np.log(self.a) - np.log(self.b + np.maximum(x - 1, 0))
        return np.where(x > 0, special.expit(-log_ratio), 1.0)

    def visits_again(self, x: Floats, t_x: Floats, age: Floats, horizon: float) -> Floats:
        """P(at least one visit in the next `horizon` days).

        Leaving happens only after a visit, so this is P(alive) (1 - ((alpha + T) / (alpha + T + h))^(r + x)), exactly.
        """
        silent = np.exp((self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + age + horizon)))
        return self.alive(x, t_x, age) * (1.0 - silent)

    def expected_visits(self, x: Floats, t_x: Floats, age: Floats, horizon: float) -> Floats:
        """E[visits in the next `horizon` days | x, t_x, T] (Fader, Hardie and Lee 2005, eq. 10)."""
        z = horizon / (self.alpha + age + horizon)
        f = special.hyp2f1(self.r + x, self.b + x, self.a + self.b + x - 1, z)
        log_power = (self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + age + horizon))
        a = self.a if abs(self.a - 1.0) > 1e-6 else 1.0 + 1e-6
        value = (a + self.b + x - 1) / (a - 1) * (1.0 - np.exp(log_power) * f)
        odds = np.where(
            x > 0,
            a
            / (self.b + np.maximum(x - 1, 1e-9))
            * np.exp((self.r + x) * np.log((self.alpha + age) / (self.alpha + t_x))),
            0.0,
        )
        return np.maximum(value / (1.0 + odds), 0.0)


def fit_beta_geometric(x: Floats, t_x: Floats, age: Floats, penalty: float = 0.01) -> BetaGeometric:
    """Maximum likelihood of BG/NBD (Fader, Hardie and Lee 2005, eq. 6), with a small penalty on the logs' squares.

    Args:
        x: Repeat visits (c).
        t_x: Days from the first visit to the last (c).
        age: Days from the first visit to the as-of day (c), > 0.
        penalty: Keeps parameters finite when nobody leaves.
    """
    scale = float(np.mean(age)) or 1.0
    t, last = age / scale, t_x / scale

    def loss(theta: Floats) -> float:
        r, alpha, a, b = np.exp(np.clip(theta, -12, 12))
        first = special.gammaln(r + x) - special.gammaln(r) + r * np.log(alpha)
        second = special.betaln(a, b + x) - special.betaln(a, b)
        stay = -(r + x) * np.log(alpha + t)
        leave = np.where(x > 0, np.log(a) - np.log(b + np.maximum(x - 1, 0)) - (r + x) * np.log(alpha + last), -np.inf)
        return float(-np.mean(first + second + np.logaddexp(stay, leave)) + penalty * np.mean(theta**2) / 10)

    best = None
    for start in (np.zeros(4), np.array([0.0, 0.0, -2.0, 1.0])):
        found = optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 500, "fatol": 1e-7})
        found = optimize.minimize(loss, found.x, method="L-BFGS-B")
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    r, alpha, a, b = np.exp(np.clip(best.x, -12, 12))
    return BetaGeometric(float(r), float(alpha * scale), float(a), float(b))


@dataclass(frozen=True)
class GammaGamma:
    """Gamma-gamma: visits of a customer vary around a mean that varies between customers.

    Attributes:
        p: Shape of a visit's value.
        q: Shape of the customers' scale.
        v: Scale of the customers' scale (money).
    """

    p: float
    q: float
    v: float

    def expected_amount(self, x: Floats, monetary: Floats) -> Floats:
        """E[value of a visit | x visits with this mean] (Fader and Hardie 2013, eq. 5): the mean, shrunk to everybody's."""
        everybody = self.p * self.v / max(self.q - 1.0, 1e-6)
        weight = self.p * x / (self.p * x + max(self.q - 1.0, 1e-6))
        return (1.0 - weight) * everybody + weight * monetary


def fit_gamma_gamma(x: Floats, monetary: Floats) -> GammaGamma:
    """Maximum likelihood of the gamma-gamma model (Fader and Hardie 2013, eq. 1a).

    Args:
        x: Visits that the mean is taken over (c); rows without one are left out.
        monetary: Mean value of a visit (c), > 0.
    """
    keep = (x > 0) & (monetary > 0)
    if keep.sum() < 3:
        mean = float(monetary[keep].mean()) if keep.any() else 1.0
        return GammaGamma(1.0, 2.0, mean)
    n, m = x[keep], monetary[keep]
    scale = float(m.mean())
    m = m / scale

    def loss(theta: Floats) -> float:
        p, q, v = np.exp(np.clip(theta, -8, 8))
        value = (
            special.gammaln(p * n + q)
            - special.gammaln(p * n)
            - special.gammaln(q)
            + q * np.log(v)
            + (p * n - 1) * np.log(m)
            + p * n * np.log(n)
            - (p * n + q) * np.log(n * m + v)
        )
        return float(-np.mean(value) + 1e-4 * np.sum(theta**2))

    found = optimize.minimize(loss, np.array([1.0, 1.0, 0.0]), method="Nelder-Mead", options={"maxiter": 1000})
    p, q, v = np.exp(np.clip(found.x, -8, 8))
    return GammaGamma(float(p), float(q), float(v * scale))
