"""What an offer changes: incremental profit per customer, learnt from customers who were and were not written to.

Only a comparison with controls shows what an offer changed; a redemption shows that somebody used it, maybe to buy what
they would have bought anyway. Where there are no controls the effect is unknown, and the model says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MIN_ROWS = 60


@dataclass(frozen=True)
class Response:
    """A model of the incremental profit of sending an offer, and of what it costs.

    Attributes:
        known: Whether the effect was measured against controls.
        model: `learned`, `average` (the same for all) or `unknown`.
        effect: Coefficients of the incremental profit.
        effect_mean: Mean incremental profit of one offer sent (money).
        effect_interval: 95 % interval of it.
        redeem: Coefficients of the log odds of redeeming.
        center: Means of the features.
        scale: Their standard deviations.
        effect_per_size: Mean effect per money of a typical purchase.
        judgement: What was compared on later offers.
    """

    known: bool
    model: str
    effect: Floats
    effect_mean: float
    effect_interval: tuple[float, float]
    redeem: Floats
    center: Floats
    scale: Floats
    effect_per_size: float = 0.0
    judgement: dict[str, float] = field(default_factory=dict)

    def incremental_profit(self, x: Floats, size: Floats) -> Floats:
        """Expected profit with the offer less without, before the cost of sending, (n); NaN if unknown.

        Args:
            x: Features (n, p).
            size: Typical money of a purchase that the offer is for (n).
        """
        if not self.known:
            return np.full(len(x), np.nan)
        if self.model == "average":
            return self.effect_per_size * size
        return np.asarray(_with_one(self._standard(x)) @ self.effect) * size

    def redemption(self, x: Floats) -> Floats:
        """Probability of using the offer (n)."""
        from scipy.special import expit

        return np.asarray(expit(_with_one(self._standard(x)) @ self.redeem))

    def _standard(self, x: Floats) -> Floats:
        return (x - self.center) / self.scale


def fit_response(
    x: Floats, treated: NDArray[np.bool_], profit: Floats, redeemed: Floats, time: Floats, size: Floats
) -> Response:
    """Fits incremental profit and redemption to the outcome of past offers.

    The effect is fitted by the R-learner (Nie and Wager 2021): residuals of profit on residuals of treatment, ridge
    regression of the ratio on the features. It replaces the average effect only if on the latest offers its ranking earns
    more: sending to the half that it ranks first, measured against the controls in that half.

    Args:
        x: Features of customer and offer (n, p).
        treated: Whether the offer was sent; False for controls (n).
        profit: Profit within the offer's days (n); NaN where nothing was landed.
        redeemed: Whether it was used (n).
        time: When it was sent (n); later rows judge what earlier ones taught.
        size: Typical money of a purchase that the offer is for (n), > 0: effects are learnt relative to it, so that dear and
            cheap families teach the same thing.
    """
    center = x.mean(axis=0) if len(x) else np.zeros(x.shape[1])
    scale = np.maximum(x.std(axis=0), 1e-9) if len(x) else np.ones(x.shape[1])
    z = (x - center) / scale
    sent = treated.astype(bool)
    redeem = _logistic(z[sent], redeemed[sent]) if sent.sum() >= MIN_ROWS else _odds_only(redeemed[sent], x.shape[1])
    usable = np.isfinite(profit)
    controls, others = int((usable & ~sent).sum()), int((usable & sent).sum())
    none = np.zeros(x.shape[1] + 1)
    if controls < MIN_ROWS or others < MIN_ROWS:
        judgement = {"controls": float(controls), "treated": float(others)}
        return Response(
            False, "unknown", none, float("nan"), (float("nan"), float("nan")), redeem, center, scale, 0.0, judgement
        )
    mean = profit[usable & sent].mean() - profit[usable & ~sent].mean()
    error = np.sqrt(profit[usable & sent].var() / others + profit[usable & ~sent].var() / controls)
    cut = np.quantile(time[usable], 0.65)
    early, late = usable & (time <= cut), usable & (time > cut)
    judgement = {"controls": float(controls), "treated": float(others)}
    model = "average"
    if all((part & arm).sum() >= MIN_ROWS // 2 for part in (early, late) for arm in (sent, ~sent)):
        trial = _r_learner(z[early], sent[early], profit[early] / size[early])
        ranking = _with_one(z[late]) @ trial
        # Whatever the share of an experiment that is written to, its best half is compared with its worst.
        best = ranking >= np.median(ranking)
        relative = profit[late] / size[late]
        gains = [_arm_difference(relative[half], sent[late][half]) for half in (best, ~best)]
        judgement["effect in the half ranked first"], judgement["effect in the other half"] = gains[0][0], gains[1][0]
        spread = np.hypot(gains[0][1], gains[1][1])
        judgement["difference over its standard error"] = float((gains[0][0] - gains[1][0]) / max(spread, 1e-9))
        if gains[0][0] - gains[1][0] > 1.0 * spread:
            model = "learned"
    effect = _r_learner(z[usable], sent[usable], profit[usable] / size[usable])
    per_size = _arm_difference(profit[usable] / size[usable], sent[usable])[0]
    return Response(
        True,
        model,
        effect,
        float(mean),
        (float(mean - 1.96 * error), float(mean + 1.96 * error)),
        redeem,
        center,
        scale,
        per_size,
        judgement,
    )


def _arm_difference(profit: Floats, sent: NDArray[np.bool_]) -> tuple[float, float]:
    one, other = profit[sent], profit[~sent]
    error = np.sqrt(one.var() / max(len(one), 1) + other.var() / max(len(other), 1))
    return float(one.mean() - other.mean()), float(error)


def _r_learner(z: Floats, sent: NDArray[np.bool_], profit: Floats, ridge: float = 20.0) -> Floats:
    """argmin_b sum (y - m(x) - (t - e) b'x)^2 + ridge |b without the constant|^2 (Nie and Wager 2021, eq. 4)."""
    cap = np.quantile(np.abs(profit), 0.995) if len(profit) else 0.0
    y = np.clip(profit, -cap, cap)
    x = _with_one(z)
    penalty = ridge * np.eye(x.shape[1])
    penalty[0, 0] = 0.0
    base = np.linalg.solve(x.T @ x + penalty, x.T @ y)
    share = sent.mean()
    t = (sent - share)[:, None] * x
    rest = y - x @ base
    return np.asarray(np.linalg.solve(t.T @ t + penalty, t.T @ rest))


def _logistic(z: Floats, y: Floats, ridge: float = 5.0, rounds: int = 25) -> Floats:
    """Ridge logistic regression by Newton's method."""
    from scipy.special import expit

    x = _with_one(z)
    b = np.zeros(x.shape[1])
    penalty = ridge * np.eye(x.shape[1])
    penalty[0, 0] = 1e-3
    for _ in range(rounds):
        p = expit(x @ b)
        w = np.maximum(p * (1 - p), 1e-6)
        step = np.linalg.solve(x.T @ (x * w[:, None]) + penalty, x.T @ (y - p) - penalty @ b)
        b = b + step
        if np.abs(step).max() < 1e-8:
            break
    return b


def _odds_only(redeemed: Floats, width: int) -> Floats:
    from scipy.special import logit

    rate = (redeemed.sum() + 1.0) / (len(redeemed) + 10.0)
    return np.r_[float(logit(rate)), np.zeros(width)]


def _with_one(x: Floats) -> Floats:
    return np.concatenate([np.ones((len(x), 1)), x], axis=1)
