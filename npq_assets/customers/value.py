"""Will a customer come back, and what will they spend: closed form beside LightGBM, judged on later time.

Candidates are fitted on labels of past horizons and judged on the last complete one. The closed form is kept unless the best
learned model is better by a paired interval that excludes zero: the simple one wins ties.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npq_assets.boosting import lightgbm
from npq_assets.customers.features import closed_form, features, linear
from npq_assets.customers.visits import Visits
from npq_assets.errors import NpqError

Floats = NDArray[np.float64]
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Settings:
    """How value models are made.

    Attributes:
        horizon: Days ahead.
        step: Days between training cutoffs; a quarter of the horizon if None.
        cutoffs: Training cutoffs at most.
        trees: Boosting rounds.
        learning_rate: Step of a round.
        leaves: Leaves of a tree.
        models: Models averaged, each with its own seed.
        threads: Threads.
        seed: Seed of everything random.
    """

    horizon: int = 28
    step: int | None = None
    cutoffs: int = 20
    trees: int = 150
    learning_rate: float = 0.04
    leaves: int = 12
    models: int = 2
    threads: int = 2
    seed: int = 0

    @property
    def gap(self) -> int:
        """Days between training cutoffs."""
        return self.step or max(1, self.horizon // 4)


@dataclass(frozen=True)
class Prospects:
    """What is expected of each customer over the horizon (c each).

    Attributes:
        p_active: Probability of at least one visit.
        spend: Expected spend (mean, money).
        spend_q10: 10 % quantile of spend.
        spend_q50: Median of spend: the point forecast of least absolute error.
        spend_q90: 90 % quantile.
        activity_model: Which model gave p_active.
        spend_model: Which gave spend.
        judgement: Loss of each model on the last complete horizon, and the paired intervals.
    """

    p_active: Floats
    spend: Floats
    spend_q10: Floats
    spend_q50: Floats
    spend_q90: Floats
    activity_model: str
    spend_model: str
    judgement: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Sample:
    who: NDArray[np.int64]
    x: Floats
    active: Floats
    spend: Floats

    def of(self, customers: NDArray[np.bool_]) -> _Sample:
        """Those of the customers chosen."""
        mine = customers[self.who]
        return _Sample(self.who[mine], self.x[mine], self.active[mine], self.spend[mine])


def _sample(visits: Visits, cutoff: int, horizon: int) -> _Sample:
    """Labelled customers seen before the cutoff."""
    x = features(visits, cutoff, horizon)
    truth = visits.between(cutoff, cutoff + horizon)
    spend = truth.total(truth.amount)
    active = (np.bincount(truth.customer, minlength=len(spend)) > 0).astype(float)
    seen = x[:, 0] > 0
    return _Sample(np.flatnonzero(seen), x[seen], active[seen], spend[seen])


def predict(visits: Visits, day: int, settings: Settings | None = None) -> Prospects:
    """Prospects of every customer as of `day`, by the models that a later past horizon chose.

    Args:
        visits: Visits; those of `day` and later are not looked at.
        day: The day about to open.
        settings: Horizon and sizes of models.

    Raises:
        NpqError: There are no visits before the day.
    """
    settings = settings or Settings()
    v = visits.before(day)
    if not len(v.day):
        raise NpqError(f"visits: none before day {day}; land baskets first")
    horizon, first = settings.horizon, int(v.day.min())
    newest = day - horizon
    closed_p, closed_spend = closed_form(v, day, horizon)
    cutoffs = [newest - k * settings.gap for k in range(settings.cutoffs * 3)]
    usable = [c for c in cutoffs if c - first >= max(horizon // 2, settings.gap)]
    earlier = [c for c in usable if c + horizon <= newest][: settings.cutoffs]
    if not usable or usable[0] != newest:
        return _simple_only(closed_p, closed_spend, "too short a history to judge a learned model")
    samples: dict[int, _Sample] = {}

    def sample(cutoff: int) -> _Sample:
        if cutoff not in samples:
            samples[cutoff] = _sample(v, cutoff, horizon)
        return samples[cutoff]

    held_out = sample(newest)
    if held_out.active.sum() < 50 or (held_out.active == 0).sum() < 50:
        return _simple_only(closed_p, closed_spend, "too few customers to judge a learned model")
    if earlier:
        judged = _Unseen.of(_Fitted.fit([sample(c) for c in earlier], settings), held_out)
    else:
        # Too short a history for a complete horizon before the last: models learn from half of the customers, and the other
        # half judges them, both ways.
        half = np.random.default_rng(settings.seed).random(len(v.customers)) < 0.5
        parts = [
            _Unseen.of(
                _Fitted.fit([sample(c).of(~mine) for c in usable[: settings.cutoffs]], settings), held_out.of(mine)
            )
            for mine in (half, ~half)
        ]
        judged = _Unseen.both(*parts)
    activity, spend, judgement = _judge(judged)
    final = [sample(newest), *[sample(c) for c in [c for c in usable if c != newest][: settings.cutoffs - 1]]]
    fitted = _Fitted.fit(final, settings)
    x = features(v, day, horizon)
    seen = x[:, 0] > 0
    p, mean, q = np.zeros(len(seen)), np.zeros(len(seen)), np.zeros((len(seen), 3))
    options = fitted.activity(x[seen])
    p[seen] = options[activity]
    if activity != "closed form":
        past = judged.activity[activity]
        p[seen] = _calibrate(past, judged.truth.active, options[activity], closed_p[seen])
    means, quantiles = fitted.spend(x[seen])
    mean[seen] = means[spend]
    q[seen] = np.sort(np.maximum(quantiles, 0.0), axis=1)
    return Prospects(p, np.maximum(mean, 0.0), q[:, 0], q[:, 1], q[:, 2], activity, spend, judgement)


def _simple_only(p: Floats, spend: Floats, why: str) -> Prospects:
    low, high = np.where(p < 0.9, 0.0, spend * 0.3), spend * 2.3
    middle = np.where(p > 0.5, spend / np.maximum(p, 0.5) * 0.8, 0.0)
    return Prospects(
        p, spend, np.minimum(low, middle), middle, np.maximum(high, middle), "closed form", "closed form", {"note": why}
    )


def _judge(judged: _Unseen) -> tuple[str, str, dict[str, Any]]:
    """Which models to use, by their losses on customers or a horizon that they have not learnt from."""
    judgement: dict[str, Any] = {}
    truth = judged.truth
    y = truth.active
    losses = {}
    for name, p in judged.activity.items():
        q = np.clip(_cross_calibrated(p, y), 1e-4, 1 - 1e-4)
        losses[name] = -(y * np.log(q) + (1 - y) * np.log(1 - q))
    activity = _simplest_best(losses, judgement, "activity")
    cap = float(np.quantile(truth.spend, 0.995))
    errors = {name: (np.minimum(truth.spend, cap) - np.minimum(mean, cap)) ** 2 for name, mean in judged.means.items()}
    spend = _simplest_best(errors, judgement, "spend")
    judgement["median_absolute_error"] = float(np.abs(truth.spend - judged.quantiles[:, 1]).mean())
    inside = (truth.spend >= judged.quantiles[:, 0]) & (truth.spend <= judged.quantiles[:, 2])
    judgement["interval_80_covers"] = float(inside.mean())
    return activity, spend, judgement


def _simplest_best(losses: dict[str, Floats], judgement: dict[str, Any], what: str) -> str:
    """The first model, or the one of least loss among those whose paired gain over the first excludes zero at 95 %."""
    simple = chosen = next(iter(losses))
    for name, loss in losses.items():
        judgement[f"{what} loss {name}"] = float(loss.mean())
        if name == simple:
            continue
        gain = losses[simple] - loss
        half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
        judgement[f"{what} gain of {name} over {simple}"] = [float(gain.mean() - half), float(gain.mean() + half)]
        if gain.mean() - half > 0 and loss.mean() < losses[chosen].mean():
            chosen = name
    judgement[what] = chosen
    return chosen


def _platt(p: Floats, y: Floats) -> tuple[float, float]:
    """Platt's logistic map (2000), shrunk to no change: intercept and slope on the logit."""
    from scipy import optimize, special

    z = special.logit(np.clip(p, 1e-5, 1 - 1e-5))

    def loss(theta: Floats) -> float:
        q = np.clip(special.expit(theta[0] + theta[1] * z), 1e-9, 1 - 1e-9)
        ridge = 2.0 * theta[0] ** 2 + 50.0 * (theta[1] - 1.0) ** 2
        return float(-(y * np.log(q) + (1 - y) * np.log(1 - q)).sum() + ridge)

    a, b = optimize.minimize(loss, np.array([0.0, 1.0]), method="Nelder-Mead").x
    return float(a), float(max(b, 0.1))


def _calibrate(p_past: Floats, y_past: Floats, p: Floats, p_closed: Floats) -> Floats:
    """Slope as the last complete horizon shows it; level between what the learned and the closed-form model expect.

    The model that is asked has learnt from that horizon too, so that its level cannot be judged there. The closed form follows
    how customers age, the learned model how the level of all moves; the middle of both was nearest on past horizons.
    """
    from scipy import optimize, special

    z = _platt(p_past, y_past)[1] * special.logit(np.clip(p, 1e-5, 1 - 1e-5))
    level = (float(p.mean()) + float(p_closed.mean())) / 2
    shift = optimize.brentq(lambda a: float(special.expit(a + z).mean()) - level, -20.0, 20.0)
    return np.asarray(special.expit(shift + z))


def _cross_calibrated(p: Floats, y: Floats, seed: int = 0) -> Floats:
    """Each half mapped by the other's Platt map: models are compared by what they know of customers, not by their level."""
    from scipy import special

    half = np.random.default_rng(seed).random(len(p)) < 0.5
    out = np.empty(len(p))
    for mine, other in ((half, ~half), (~half, half)):
        a, b = _platt(p[other], y[other])
        out[mine] = special.expit(a + b * special.logit(np.clip(p[mine], 1e-5, 1 - 1e-5)))
    return out


@dataclass(frozen=True)
class _Fitted:
    """Models of activity and spend fitted to labelled customers."""

    logistic: Any
    classifiers: list[Any]
    means: list[Any]
    quantiles: list[list[Any]]

    @classmethod
    def fit(cls, samples: list[_Sample], settings: Settings) -> _Fitted:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        lgb = lightgbm()
        x = np.concatenate([s.x for s in samples])
        active = np.concatenate([s.active for s in samples])
        spend = np.concatenate([s.spend for s in samples])
        # The columns say much the same in many ways: a strong ridge shares the weight between them.
        logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500)).fit(linear(x), active)
        common = {
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": 40,
            "feature_fraction": 0.5,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": 10.0,
            "max_bin": 127,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": settings.threads,
            "verbosity": -1,
        }

        def models(objective: dict[str, Any], y: Floats, trees: int) -> list[Any]:
            return [
                lgb.train(
                    {**common, **objective, "seed": settings.seed + k},
                    lgb.Dataset(x, y, params={"max_bin": 127, "verbosity": -1}),
                    trees,
                )
                for k in range(settings.models)
            ]

        # Yes or no holds less than an amount: shallow trees from few columns rank better where customers are few, and as well
        # where they are many.
        shallow = {
            "objective": "binary",
            "num_leaves": max(3, settings.leaves // 2),
            "min_data_in_leaf": 100,
            "feature_fraction": 0.2,
        }
        cap = float(np.quantile(spend, 0.998))
        quantiles = [
            models({"objective": "quantile", "alpha": level}, np.sqrt(spend), settings.trees) for level in QUANTILES
        ]
        return cls(
            logistic,
            models(shallow, active, settings.trees * 2 // 3),
            models({"objective": "tweedie", "tweedie_variance_power": 1.3}, np.minimum(spend, cap), settings.trees),
            quantiles,
        )

    def activity(self, x: Floats) -> dict[str, Floats]:
        """P(active) by model, the simplest first."""
        from scipy import special

        learned = np.mean([model.predict(x, num_threads=2) for model in self.classifiers], axis=0)
        flat = self.logistic.predict_proba(linear(x))[:, 1]
        closed = x[:, -2]

        def together(*parts: Floats) -> Floats:
            return np.asarray(
                special.expit(np.mean([special.logit(np.clip(p, 1e-4, 1 - 1e-4)) for p in parts], axis=0))
            )

        return {
            "closed form": closed,
            "logistic": flat,
            "lightgbm": learned,
            "logistic + lightgbm": together(flat, learned),
            "all three": together(closed, flat, learned),
        }

    def spend(self, x: Floats) -> tuple[dict[str, Floats], Floats]:
        """Mean spend by model, the simplest first, and quantiles (n, 3)."""
        learned = np.mean([model.predict(x, num_threads=2) for model in self.means], axis=0)
        # Quantiles pass through the square root and back unchanged.
        roots = np.stack([np.mean([m.predict(x, num_threads=2) for m in level], axis=0) for level in self.quantiles], 1)
        return {
            "closed form": x[:, -1],
            "lightgbm": learned,
            "lightgbm + closed form": (learned + x[:, -1]) / 2,
        }, np.maximum(roots, 0.0) ** 2


@dataclass(frozen=True)
class _Unseen:
    """What models expected of customers or a horizon that they had not learnt from, and what came."""

    truth: _Sample
    activity: dict[str, Floats]
    means: dict[str, Floats]
    quantiles: Floats

    @classmethod
    def of(cls, fitted: _Fitted, truth: _Sample) -> _Unseen:
        """The models asked about the sample."""
        return cls(truth, fitted.activity(truth.x), *fitted.spend(truth.x))

    @classmethod
    def both(cls, one: _Unseen, other: _Unseen) -> _Unseen:
        """Two sets of customers as one."""

        def join(a: dict[str, Floats], b: dict[str, Floats]) -> dict[str, Floats]:
            return {name: np.concatenate([a[name], b[name]]) for name in a}

        a, b = one.truth, other.truth
        names = ("who", "x", "active", "spend")
        return cls(
            _Sample(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in names)),
            join(one.activity, other.activity),
            join(one.means, other.means),
            np.concatenate([one.quantiles, other.quantiles]),
        )
