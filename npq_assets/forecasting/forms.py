"""The forms of a forecast's centre, and how they are combined: three boosted corrections beside simple and local methods.

`ratio` corrects the seasonal mean, `robust` does so under another loss (Tweedie for counts, absolute error for measured
demand), `level` forecasts the demand over the series' level and finds the season itself; they learn from the same rows
and share their histograms. The seasonal mean, the seasonal naive method with growth, and, where
the panel is one for them, exponential smoothing and Theta stand beside them. Weights are non-negative, add up to one and
are chosen per segment on held-out demand (stacking, Breiman 1996); a segment with little evidence keeps those of all.
Spread does not belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from npq_assets.boosting import lightgbm
from npq_assets.forecasting.rows import Rows

SIMPLE = ("seasonal_mean", "seasonal_naive")
BOOSTED = ("ratio", "level", "robust")
_OBJECTIVE = {
    ("ratio", True): "poisson",
    ("level", True): "poisson",
    ("robust", True): "tweedie",
    ("ratio", False): "l2",
    ("level", False): "l2",
    ("robust", False): "l1",
}
_FLOOR = 0.05
_PULL = 0.01  # price of leaving the starting weights, as a share of demand: what held-out luck is worth
_COUNT_BINS = np.array([0.5, 1.5, 5.0, 20.0])
_NOISE_BINS = np.array([0.06, 0.15, 0.4])
SEGMENTS = (
    "counts below 0.5",
    "counts 0.5 to 1.5",
    "counts 1.5 to 5",
    "counts 5 to 20",
    "counts above 20",
    "measured, very smooth",
    "measured, smooth",
    "measured, noisy",
    "measured, erratic",
)


@dataclass(frozen=True)
class Boosting:
    """How boosted forms are trained.

    Attributes:
        trees: Boosting rounds at most; held-out loss says when to stop.
        learning_rate: Step of a round.
        leaves: Leaves of a tree; three times as many for measured demand, which is less noisy.
        min_leaf: Rows of a leaf at least; a third of them for measured demand.
    """

    trees: int = 400
    learning_rate: float = 0.11
    leaves: int = 15
    min_leaf: int = 200


def segment_of(mean: np.ndarray, scatter: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Segment number (see SEGMENTS) of rows: counts by their mean, measured demand by its noise; all broadcast."""
    mean = np.maximum(np.abs(mean), 1e-9)
    noise = np.sqrt(scatter / mean)
    measured = len(_COUNT_BINS) + 1 + np.searchsorted(_NOISE_BINS, noise)
    return np.where(counts, np.searchsorted(_COUNT_BINS, mean), measured)


def boost(
    rows: Rows,
    counts: bool,
    how: Boosting,
    seed: int,
    threads: int | None,
    held_out: Rows | None = None,
    trees: dict[str, int] | None = None,
) -> tuple[dict[str, str], dict[str, int]]:
    """Trains the boosted forms on one set of binned rows.

    Args:
        rows: Training rows.
        counts: Poisson likelihood (quasi-Poisson weights) if true, squared error of the logarithm otherwise.
        how: Settings.
        seed: Seed.
        threads: Threads of LightGBM.
        held_out: Rows whose loss stops the training.
        trees: Rounds of each form, where they are known already.

    Returns:
        Model text and rounds by form.
    """
    lgb = lightgbm()
    names = [f"f{i}" for i in range(rows.x.shape[1])]
    binning = {"max_bin": 127, "verbosity": -1, "num_threads": threads or 2}
    data = lgb.Dataset(rows.x, np.zeros(len(rows.y)), feature_name=names, free_raw_data=False, params=binning)
    judged = None
    if held_out is not None:
        judged = lgb.Dataset(
            held_out.x, np.zeros(len(held_out.y)), reference=data, feature_name=names, free_raw_data=False
        )
    texts: dict[str, str] = {}
    rounds: dict[str, int] = {}
    for i, form in enumerate(BOOSTED):
        for part, table in ((rows, data), (held_out, judged)):
            if part is None or table is None:
                continue
            label, weight = _target(part, form, counts)
            table.set_label(label)
            table.set_weight(weight)
            table.set_init_score(np.zeros(len(label)))
        parameters = {
            "objective": _OBJECTIVE[form, counts],
            "tweedie_variance_power": 1.3,
            "learning_rate": how.learning_rate,
            "num_leaves": how.leaves if counts else 3 * how.leaves,
            "min_data_in_leaf": min(how.min_leaf if counts else how.min_leaf // 3, max(20, len(rows.y) // 50)),
            "feature_fraction": 0.5,
            "bagging_fraction": 0.6,
            "bagging_freq": 1,
            "lambda_l2": 5.0 if counts else 1.0,
            "max_bin": 127,
            "seed": seed * 1000 + i + 1,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads or 2,
            "verbosity": -1,
            "boost_from_average": False,
        }
        stop = [lgb.early_stopping(15, verbose=False)] if judged is not None else None
        most = trees[form] if trees else how.trees
        model = lgb.train(parameters, data, most, valid_sets=[judged] if judged is not None else None, callbacks=stop)
        rounds[form] = max(20, int(model.best_iteration or most)) if judged is not None else most
        texts[form] = model.model_to_string(num_iteration=rounds[form])
    return texts, rounds


def offset_of(form: str, base: np.ndarray, level: np.ndarray) -> np.ndarray:
    """What a boosted form corrects: the level for `level`, the seasonal mean for the others."""
    return level if form == "level" else base


def _target(rows: Rows, form: str, counts: bool) -> tuple[np.ndarray, np.ndarray]:
    offset = offset_of(form, rows.base, rows.level)
    ratio = np.clip(rows.y / np.maximum(offset, 1e-9), 0.0, 20.0)
    if counts:
        weight = offset / rows.scatter
        label = ratio
    else:
        weight = rows.base
        label = np.log(np.maximum(ratio, _FLOOR))
    weight = np.minimum(weight, np.quantile(weight, 0.995))
    return label, weight / max(float(weight.mean()), 1e-12)


def boosted(text: str, table: np.ndarray, counts: bool, threads: int | None) -> np.ndarray:
    """Factor on the form's offset (R) that a model predicts."""
    raw = lightgbm().Booster(model_str=text).predict(table, raw_score=True, num_threads=threads or 2)
    return np.exp(np.clip(np.asarray(raw), -3.0, 3.0))


def stack(
    members: np.ndarray, y: np.ndarray, scatter: np.ndarray, segment: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Weights (S, F) of members by segment that had the lowest held-out loss.

    The loss is the absolute error for measured demand and the quasi-Poisson deviance for counts, each as a share of
    demand. Minimized over the simplex, first for all rows, then for each segment with a pull towards the weights of all.

    Args:
        members: What each form expected (R, F).
        y: Demand that came (R).
        scatter: Variance over mean (R).
        segment: Segment numbers (R).
        counts: Whether the row is of a count (R).
    """
    size = members.shape[1]
    even = np.full(size, 1.0 / size)
    out = np.empty((len(SEGMENTS), size))
    for kind in (True, False):
        mine = counts == kind
        pooled = _weights(members[mine], y[mine], scatter[mine], kind, even, _PULL) if mine.sum() >= 50 else even
        first = len(_COUNT_BINS) + 1
        for s in range(first) if kind else range(first, len(SEGMENTS)):
            here = mine & (segment == s)
            if here.sum() < 200:
                out[s] = pooled
                continue
            out[s] = _weights(members[here], y[here], scatter[here], kind, pooled, _PULL + 1.0 / float(here.sum()))
    return np.round(out, 6)


def _weights(
    members: np.ndarray, y: np.ndarray, scatter: np.ndarray, counts: bool, start: np.ndarray, pull: float
) -> np.ndarray:
    from scipy import optimize

    step = max(1, len(y) // 20_000)
    members, y, scatter = members[::step], y[::step], scatter[::step]
    scale = max(float(np.abs(y).mean()), 1e-12)
    unit = max(float((y / scatter).mean()), 1e-12) if counts else scale

    def loss(w: Any) -> Any:
        mean = members @ w
        if counts:
            mean = np.maximum(mean, 1e-9)
            value, slope = float(((mean - y * np.log(mean)) / scatter).mean()), (1.0 - y / mean) / scatter
        else:
            smooth = np.sqrt((mean - y) ** 2 + (0.01 * scale) ** 2)
            value, slope = float(smooth.mean()), (mean - y) / smooth
        away = w - start
        gradient = members.T @ slope / (len(y) * unit) + 2 * pull * away
        return value / unit + pull * float(away @ away), gradient

    whole: Any = [{"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones_like(w)}]
    found: Any = optimize.minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(start),
        constraints=whole,
        options={"maxiter": 100, "ftol": 1e-9},
    )
    w = np.clip(np.asarray(found.x, float), 0.0, None)
    return w / w.sum() if np.isfinite(w).all() and w.sum() > 0 else start
