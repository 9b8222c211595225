"""The global model: LightGBM corrects the simple method, held-out errors say how far to trust it and how wide it is.

`train` learns from history up to its last period; `FittedModel.predict` forecasts from any later history, so that a
model is trained weekly and asked daily. It knows no series by name: new items need no retraining. Orders and costs do
not belong here.

Method: the mean is baseline * exp(f(x)), f boosted under a Poisson likelihood whose weight is demand over its
scatter (quasi-Poisson, McCullagh & Nelder 1989, ch. 9). Spread is a log-linear variance fitted to time-ordered held-out
errors, for counts by the likelihood of the negative binomial. The shape is conformal: held-out probability transforms
recalibrate the levels (Kuleshov et al. 2018).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from npq_assets.errors import NpqError
from npq_assets.forecasting import baseline, features
from npq_assets.forecasting.baseline import Tuning
from npq_assets.forecasting.distribution import Dependence, ForecastDistribution
from npq_assets.forecasting.panel import Frame, Panel
from npq_assets.forecasting.panel import build as build_panel
from npq_assets.storage import write_json, write_text

_LEVELS = np.concatenate([[0.0, 0.002, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.998, 1.0]])
_MEAN_BINS = np.array([0.5, 1.5, 5.0])
_MIN_ROWS = 400
_MIN_SALES = 20


@dataclass(frozen=True)
class Settings:
    """How models are trained; the defaults serve all data.

    Attributes:
        trees: Boosting rounds of a model at most; held-out loss says when to stop.
        learning_rate: Step of a round.
        leaves: Leaves of a tree.
        min_leaf: Rows of a leaf at least.
        models: Models averaged, each with its own seed.
        max_rows: Training rows at most (bounds memory and time).
        max_series: Series used for training at most.
        tuning: Constants of the baseline.
    """

    trees: int = 400
    learning_rate: float = 0.05
    leaves: int = 15
    min_leaf: int = 200
    models: int = 2
    max_rows: int = 150_000
    max_series: int = 4_000
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True)
class FittedModel:
    """A trained model: everything `predict` needs beside fresh history.

    Attributes:
        freq: Frequency it was trained for.
        unit: Unit of the period grid.
        seasons: Seasons as (positions, periods per position).
        horizon: Furthest period ahead it has learned.
        cutoff: Last period it was trained on.
        names: Features in order.
        boosters: LightGBM models as text; none where data could not carry a model.
        weight: Share of the model's correction that is applied (0 = the simple method).
        variance: Coefficients of the log-linear variance of measured demand.
        excess: Coefficients of the log-linear excess of a count's variance over its mean.
        shape: Calibrated shape by segment (see ForecastDistribution).
        dependence: What links scenarios.
        covariates: Known covariates it expects.
        settings: How it was trained.
        evidence: Held-out measures behind the choices.
        reason: Why there is no LightGBM model, if so.
    """

    freq: str
    unit: str
    seasons: tuple[tuple[int, int], ...]
    horizon: int
    cutoff: date
    names: tuple[str, ...]
    boosters: tuple[str, ...]
    weight: float
    variance: tuple[float, ...]
    excess: tuple[float, ...]
    shape: np.ndarray
    dependence: Dependence
    covariates: tuple[str, ...]
    settings: Settings
    evidence: dict[str, Any]
    reason: str = ""

    @property
    def version(self) -> str:
        """Hash of the model's content, 16 hex digits."""
        digest = hashlib.sha256(json.dumps(self._document(), sort_keys=True).encode())
        for text in self.boosters:
            digest.update(text.encode())
        return digest.hexdigest()[:16]

    def _document(self) -> dict[str, Any]:
        return {
            "freq": self.freq,
            "unit": self.unit,
            "seasons": [list(s) for s in self.seasons],
            "horizon": self.horizon,
            "cutoff": self.cutoff.isoformat(),
            "names": list(self.names),
            "weight": self.weight,
            "variance": list(self.variance),
            "excess": list(self.excess),
            "shape": [[float(v) for v in row] for row in self.shape],
            "dependence": asdict(self.dependence),
            "covariates": list(self.covariates),
            "settings": asdict(self.settings),
            "evidence": self.evidence,
            "reason": self.reason,
            "boosters": len(self.boosters),
        }

    def save(self, folder: Path | str) -> Path:
        """Writes model.json and lightgbm_<i>.txt into `folder`."""
        folder = Path(folder)
        for i, text in enumerate(self.boosters):
            write_text(text, folder / f"lightgbm_{i}.txt")
        write_json(self._document(), folder / "model.json")
        return folder

    def predict(
        self,
        history: Frame,
        horizon: int | None = None,
        *,
        future: Frame | None = None,
        static: Frame | None = None,
        available: Frame | None = None,
        ids: list[str] | None = None,
        threads: int | None = None,
    ) -> ForecastDistribution:
        """Forecasts the periods after the last of `history`, for every series in it.

        Args:
            history: unique_id, ds, y (+ covariates), as for `train`; may be fresher than the training.
            horizon: Periods ahead; default: as trained. Beyond it the furthest learned horizon's correction holds.
            future: unique_id, ds and the same covariates.
            static: unique_id and attributes.
            available: unique_id, ds, in_stock; absent rows are in stock.
            ids: Further series to forecast, also without history (new items).
            threads: Threads for prediction.

        Raises:
            NpqError: Unusable input.
        """
        horizon = _checked_horizon(self.horizon if horizon is None else horizon)
        panel = build_panel(
            history, self.freq, future=future, static=static, available=available, horizon=horizon, ids=ids
        )
        return self.predict_panel(panel, horizon, threads=threads)

    def predict_panel(self, panel: Panel, horizon: int, threads: int | None = None) -> ForecastDistribution:
        """`predict` on a panel that is already laid out."""
        n, length = panel.shape
        base = baseline.fit(panel, self.seasons, self.settings.tuning)
        ahead = np.arange(1, horizon + 1)
        mean = base.mean(panel.start + length - 1 + ahead)
        seen = panel.observed.sum(1)
        modelled = np.zeros(n, bool)
        if self.boosters and self.weight > 0:
            modelled = (seen >= 4) & (base.level > 0)
            rows = np.nonzero(modelled)[0]
            if len(rows):
                correction = self._correction(panel, base, np.minimum(ahead, self.horizon), ahead, rows, threads)
                mean[rows] *= np.exp(self.weight * correction)
        counts, signed = kinds(panel)
        method = np.where(modelled, "lightgbm", "seasonal_mean").astype(object)
        method[(seen > 0) & (base.prior == 0)] = "zero"
        constant = _constant(panel)
        method[constant & (seen >= 3) & (base.prior != 0)] = "constant"
        new = seen == 0
        method[new] = "new_item"
        if new.any():
            mean[new] = self._new_items(panel, base, mean, new)
        mean = np.where(signed[:, None], mean, np.maximum(mean, 0.0))
        sd = np.sqrt(
            self._variance(
                mean,
                np.broadcast_to(base.scatter[:, None], mean.shape),
                np.broadcast_to(ahead, mean.shape),
                counts[:, None],
            )
        )
        sd[constant & (seen >= 3)] *= 0.25
        sd[new] = np.maximum(sd[new], np.abs(mean[new]))
        segment = segment_of(mean, counts)
        return ForecastDistribution(
            panel.ids,
            panel.dates(length - 1 + ahead),
            panel.dates(np.array([length - 1]))[0],
            mean,
            sd,
            counts,
            signed,
            _LEVELS,
            self.shape,
            segment,
            method,
            self.version,
            self.dependence,
        )

    def _correction(
        self,
        panel: Panel,
        base: baseline.Baseline,
        capped: np.ndarray,
        ahead: np.ndarray,
        rows: np.ndarray,
        threads: int | None,
    ) -> np.ndarray:
        table, names = features.build(panel, base, ahead, rows)
        where = {name: i for i, name in enumerate(names)}
        table[:, where["horizon"]] = np.tile(capped, len(rows))
        if tuple(names) != self.names:
            aligned = np.full((len(table), len(self.names)), np.nan, np.float32)
            for i, name in enumerate(self.names):
                if name in where:
                    aligned[:, i] = table[:, where[name]]
            table = aligned
        return _raw(self.boosters, table, threads).reshape(len(rows), len(ahead))

    def _variance(self, mean: np.ndarray, scatter: np.ndarray, horizon: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Variance of demand; all arrays broadcast."""
        size = np.maximum(np.abs(mean), 1e-9)
        x = _variance_features(size, scatter, horizon.astype(float))
        measured = size * np.exp(np.clip(x @ np.array(self.variance), -20, 20))
        return np.where(counts, size * (1.0001 + np.exp(np.clip(x @ np.array(self.excess), -8, 8))), measured)

    def _new_items(self, panel: Panel, base: baseline.Baseline, mean: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Expected demand of series without history: the mean of the series that share most of their attributes."""
        out = np.zeros((int(new.sum()), mean.shape[1]))
        known = ~new
        if not known.any():
            return out
        out[:] = np.median(mean[known], 0)
        for _, codes in sorted(panel.groups.values(), key=lambda g: len(g[0])):
            for code in np.unique(codes[new]):
                peers = known & (codes == code)
                if code >= 0 and peers.any():
                    out[codes[new] == code] = np.median(mean[peers], 0)
        return out


def load(folder: Path | str) -> FittedModel:
    """Reads a model that `FittedModel.save` wrote.

    Raises:
        NpqError: The folder holds no readable model.
    """
    folder = Path(folder)
    try:
        document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        boosters = tuple(
            (folder / f"lightgbm_{i}.txt").read_text(encoding="utf-8") for i in range(document["boosters"])
        )
        settings = document["settings"]
        return FittedModel(
            document["freq"],
            document["unit"],
            tuple((int(a), int(b)) for a, b in document["seasons"]),
            document["horizon"],
            date.fromisoformat(document["cutoff"]),
            tuple(document["names"]),
            boosters,
            document["weight"],
            tuple(document["variance"]),
            tuple(document["excess"]),
            np.array(document["shape"], float),
            Dependence(**document["dependence"]),
            tuple(document["covariates"]),
            Settings(**{**settings, "tuning": Tuning(**settings["tuning"])}),
            document["evidence"],
            document["reason"],
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise NpqError(f"{folder}: no readable forecasting model ({error}); train it again") from error


def train(
    history: Frame,
    horizon: int,
    freq: str,
    *,
    season_length: int | None = None,
    future: Frame | None = None,
    static: Frame | None = None,
    available: Frame | None = None,
    threads: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> FittedModel:
    """Trains on all of `history`; cut it at the as-of day before.

    Args:
        history: unique_id, ds, y (+ covariates known ahead).
        horizon: Periods ahead to learn.
        freq: See `Calendar.of`.
        season_length: Periods of the season; default: the natural ones of `freq`.
        future: Covariates ahead; only the names matter here.
        static: unique_id and attributes.
        available: unique_id, ds, in_stock; demand of periods out of stock is unknown, never zero.
        threads: Threads of LightGBM (default 2).
        seed: Seed of everything random.
        settings: How to train.

    Raises:
        NpqError: Unusable input.
    """
    horizon = _checked_horizon(horizon)
    panel = build_panel(history, freq, future=future, static=static, available=available, horizon=horizon)
    return train_panel(panel, horizon, freq, season_length=season_length, threads=threads, seed=seed, settings=settings)


def train_panel(
    panel: Panel,
    horizon: int,
    freq: str,
    *,
    season_length: int | None = None,
    threads: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
) -> FittedModel:
    """`train` on a panel that is already laid out."""
    settings = settings or Settings()
    seasons = baseline.seasons_of(panel, season_length)
    rng = np.random.default_rng(seed)
    if panel.shape[0] > settings.max_series:
        panel = _some(panel, np.sort(rng.choice(panel.shape[0], settings.max_series, replace=False)))
    n, length = panel.shape
    last = panel.dates(np.array([length - 1]))[0]
    year = panel.calendar.year
    empty = FittedModel(
        freq,
        panel.calendar.unit,
        seasons,
        horizon,
        last,
        (),
        (),
        0.0,
        (0.0, 0.7, 0.0, 0.0),
        (-1.0, 0.5, 0.5, 0.0),
        np.stack([_LEVELS] * 4 + [_normal()]),
        Dependence(),
        tuple(panel.known),
        settings,
        {},
        "",
    )
    # Held-out stretch: recent, long enough for every horizon, short enough to leave something to learn from.
    held = int(min(max(2 * horizon, year // 2), length // 3))
    first_origin = max(6, min(year + year // 6, length // 3))
    if held < 2 or length - held - 1 <= first_origin:
        return replace(empty, reason=f"{length} periods are too few for a model")
    reach = min(horizon, max(1, held))
    split = length - held
    learn = _rows(panel, seasons, settings, _spaced(first_origin, split, settings, n, reach), reach, split, rng)
    if learn is None or len(learn.y) < _MIN_ROWS or (learn.y > 0).sum() < _MIN_SALES:
        count = 0 if learn is None else len(learn.y)
        test = _rows(panel, seasons, settings, np.arange(split, length), reach, length, rng)
        model = replace(
            empty,
            reason=f"{count} training rows: fewer than {_MIN_ROWS}, or than {_MIN_SALES} with demand",
        )
        return (
            _calibrated(model, panel, test, np.zeros(0 if test is None else len(test.y)))
            if test is not None and len(test.y) >= 30
            else model
        )
    judged = replace(settings, max_rows=settings.max_rows // 2)
    test = _rows(panel, seasons, judged, _thinned(np.arange(split, length), 40), reach, length, rng)
    if test is None or len(test.y) < 30:
        return replace(empty, reason="no held-out demand to judge a model by")
    boosters, trees = _boost(learn, replace(settings, models=1), seed, threads, test)
    raw = _raw(boosters, test.x, threads)
    weights = (0.0, 0.25, 0.5, 0.75, 1.0)
    losses = [float(np.average(_deviance(test.y, test.base * np.exp(w * raw), test.scatter))) for w in weights]
    weight = weights[int(np.argmin(losses))]
    evidence = {
        "held_out_deviance": dict(zip(map(str, weights), [round(v, 6) for v in losses], strict=True)),
        "held_out_rows": len(test.y),
        "trees": trees,
    }
    model = replace(empty, names=tuple(test.names), weight=weight, evidence=evidence)
    model = _calibrated(model, panel, test, raw)
    if weight == 0.0:
        return replace(model, reason="the simple method had the lower held-out loss")
    everything = _rows(panel, seasons, settings, _spaced(first_origin, length, settings, n, reach), reach, length, rng)
    if everything is None or (everything.y > 0).sum() < _MIN_SALES:
        return replace(model, weight=0.0, reason="too little demand for a model")
    return replace(model, boosters=_boost(everything, replace(settings, trees=trees), seed, threads)[0])


@dataclass(frozen=True)
class _Rows:
    x: np.ndarray
    y: np.ndarray
    base: np.ndarray
    scatter: np.ndarray
    series: np.ndarray
    origin: np.ndarray
    horizon: np.ndarray
    names: list[str]


_ARRAYS = ("x", "y", "base", "scatter", "series", "origin", "horizon")


def _spaced(first: int, last: int, settings: Settings, n: int, reach: int) -> np.ndarray:
    """Origins for training: enough for max_rows, evenly spaced back from the end."""
    wanted = max(8, int(np.ceil(settings.max_rows / max(1, n * reach))))
    origins = np.arange(first, last)
    return _thinned(origins, max(wanted, 30))


def _thinned(origins: np.ndarray, most: int) -> np.ndarray:
    """At most about `most` origins, evenly spaced back from the last."""
    step = max(1, int(np.ceil(len(origins) / most)))
    return origins[::-1][::step][::-1]


def _rows(
    panel: Panel,
    seasons: tuple[tuple[int, int], ...],
    settings: Settings,
    origins: np.ndarray,
    reach: int,
    end: int,
    rng: np.random.Generator,
) -> _Rows | None:
    """Training rows from origins: features known after `origin` periods, target observed before column `end`."""
    n = panel.shape[0]
    possible = len(origins) * n * reach
    share = min(1.0, settings.max_rows / max(1, possible))
    parts = []
    names: list[str] = []
    for origin in origins:
        horizons = np.arange(1, min(reach, end - origin) + 1)
        if not len(horizons):
            continue
        past = panel.until(int(origin))
        base = baseline.fit(past, seasons, settings.tuning)
        alive = (past.observed.sum(1) >= 4) & (base.level > 0)
        rows = np.nonzero(alive)[0]
        if share < 1.0 and len(rows):
            rows = np.sort(rng.choice(rows, max(1, int(np.ceil(share * len(rows)))), replace=False))
        if not len(rows):
            continue
        x, names = features.build(past, base, horizons, rows)
        target = origin - 1 + horizons
        seen = panel.observed[np.ix_(rows, target)].reshape(-1)
        mean = base.mean(panel.start + target)[rows].reshape(-1)
        keep = seen & (mean > 0)
        parts.append(
            _Rows(
                x[keep],
                panel.y[np.ix_(rows, target)].reshape(-1)[keep],
                mean[keep],
                np.repeat(base.scatter[rows], len(horizons))[keep],
                np.repeat(rows, len(horizons))[keep],
                np.full(int(keep.sum()), origin),
                np.tile(horizons, len(rows))[keep],
                names,
            )
        )
    if not parts:
        return None
    stacked = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    return _Rows(**stacked, names=names)


def _boost(
    rows: _Rows, settings: Settings, seed: int, threads: int | None, held_out: _Rows | None = None
) -> tuple[tuple[str, ...], int]:
    """Models as text, and their rounds; with held-out rows, the rounds after which their loss no longer falls."""
    lgb = _lightgbm()

    def data(part: _Rows, reference: Any = None) -> Any:
        ratio = np.clip(part.y / part.base, 0.0, 20.0)
        weight = part.base / part.scatter
        weight = np.minimum(weight, np.quantile(weight, 0.995))
        names = [f"f{i}" for i in range(part.x.shape[1])]
        start = np.zeros(len(ratio))
        return lgb.Dataset(
            part.x,
            ratio,
            weight=weight / weight.mean(),
            init_score=start,
            feature_name=names,
            reference=reference,
            free_raw_data=False,
            params={"max_bin": 127, "verbosity": -1},
        )

    learning = data(rows)
    judged = [data(held_out, learning)] if held_out is not None else None
    texts, rounds = [], settings.trees
    for i in range(settings.models):
        parameters = {
            "objective": "poisson",
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.leaves,
            "min_data_in_leaf": min(settings.min_leaf, max(20, len(rows.y) // 50)),
            "feature_fraction": 0.5,
            "bagging_fraction": 0.6,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "max_bin": 127,
            "seed": seed * 1000 + i + 1,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": threads or 2,
            "verbosity": -1,
            "boost_from_average": False,
        }
        stop = [lgb.early_stopping(30, verbose=False)] if judged else None
        model = lgb.train(parameters, learning, settings.trees, valid_sets=judged, callbacks=stop)
        if judged:
            rounds = max(20, int(model.best_iteration or settings.trees))
        texts.append(model.model_to_string(num_iteration=rounds))
    return tuple(texts), rounds


def _raw(boosters: tuple[str, ...], table: np.ndarray, threads: int | None) -> np.ndarray:
    lgb = _lightgbm()

    total = np.zeros(len(table))
    for text in boosters:
        total += np.asarray(lgb.Booster(model_str=text).predict(table, raw_score=True, num_threads=threads or 2))
    return np.clip(total / max(1, len(boosters)), -3.0, 3.0)


def _lightgbm() -> Any:
    """LightGBM, imported when needed; idle threads sleep, else a busy machine spends its time waiting for them."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import lightgbm

    return lightgbm


def _deviance(y: np.ndarray, mean: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """Quasi-Poisson deviance, each series scaled by its scatter."""
    mean = np.maximum(mean, 1e-9)
    positive = np.maximum(y, 0.0)
    log = np.where(positive > 0, positive * np.log(np.maximum(positive, 1e-12) / mean), 0.0)
    return 2 * (log - (positive - mean)) / scatter


def _variance_features(mean: np.ndarray, scatter: np.ndarray, horizon: np.ndarray) -> np.ndarray:
    return np.stack([np.ones(mean.shape), np.log(scatter), np.log(mean / scatter), np.log(horizon)], -1)


def _fit_variance(
    y: np.ndarray, mean: np.ndarray, scatter: np.ndarray, horizon: np.ndarray, use: np.ndarray
) -> tuple[float, ...]:
    """Gamma regression with log link of squared errors over the mean (iteratively reweighted least squares)."""
    prior = np.array([0.0, 1.0, 0.0, 0.0])
    if use.sum() < 30:
        return tuple(map(float, prior))
    y, mean, scatter, horizon = y[use], mean[use], scatter[use], horizon[use]
    x = _variance_features(np.maximum(np.abs(mean), 1e-9), scatter, horizon.astype(float))
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
    prior: np.ndarray,
    most: int = 15_000,
) -> tuple[float, ...]:
    """Maximum likelihood of the negative binomial whose variance is mean * (1 + exp(coefficients . x)).

    Likelihood, unlike squared errors, is not carried away by a few bursts.
    """
    from scipy import optimize, special

    rows = np.nonzero(use)[0]
    if len(rows) < 100:
        return tuple(map(float, prior))
    rows = rows[:: max(1, len(rows) // most)]
    y, mean = y[rows], np.maximum(mean[rows], 1e-6)
    x = _variance_features(mean, scatter[rows], horizon[rows].astype(float))

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


def segment_of(mean: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Calibration segment (n, H): counts by mean demand, other demand apart."""
    return np.where(counts[:, None], np.searchsorted(_MEAN_BINS, mean), len(_MEAN_BINS) + 1)


def _normal() -> np.ndarray:
    from scipy import special

    return special.ndtri(np.clip(_LEVELS, 0.0005, 0.9995))


def _calibrated(model: FittedModel, panel: Panel, rows: _Rows | None, raw: np.ndarray) -> FittedModel:
    """The model with spread, shape and dependence fitted to held-out errors."""
    from scipy import special

    assert rows is not None
    from_all = rows.base * np.exp(model.weight * raw)
    # A period that surprised all series alike (a peak seen for the first time) says little about the periods to come:
    # such periods count for less, so that one does not widen or shift every later forecast.
    period = rows.origin + rows.horizon
    luck = np.log(
        (np.bincount(period, rows.y / rows.scatter).clip(0) + 5.0)
        / (np.bincount(period, from_all / rows.scatter) + 5.0)
    )
    middle = float(np.median(luck[np.unique(period)]))
    keep = np.random.default_rng(54321).random(len(period)) < 1.0 / (1.0 + ((luck[period] - middle) / 0.15) ** 2)
    keep |= ~kinds(panel)[0][rows.series]
    rows = _Rows(**{f: getattr(rows, f)[keep] for f in _ARRAYS}, names=rows.names)
    mean = from_all[keep]
    counts = kinds(panel)[0][rows.series]
    model = replace(
        model,
        variance=_fit_variance(rows.y, mean, rows.scatter, rows.horizon, ~counts),
        excess=_fit_excess(rows.y, mean, rows.scatter, rows.horizon, counts, np.array(model.excess)),
    )
    variance = model._variance(mean, rows.scatter, rows.horizon, counts)
    u = np.full(len(mean), 0.5)
    rng = np.random.default_rng(12345)
    if counts.any():
        u[counts] = randomized_transform(rows.y[counts], mean[counts], variance[counts], rng)
    shape = model.shape.copy()
    segment = np.where(counts, np.searchsorted(_MEAN_BINS, mean), len(_MEAN_BINS) + 1)
    pooled = np.quantile(u[counts], _LEVELS) if counts.sum() >= 30 else _LEVELS
    for s in range(len(_MEAN_BINS) + 1):
        here = u[segment == s]
        own = np.quantile(here, _LEVELS) if len(here) >= 30 else pooled
        trust = len(here) / (len(here) + 300)
        mixed = trust * own + (1 - trust) * (pooled if counts.sum() > 300 else _LEVELS)
        mixed[0], mixed[-1] = 0.0, 1.0
        shape[s] = np.maximum.accumulate(mixed)
    real = ~counts
    if real.sum() >= 30:
        z = (rows.y[real] - mean[real]) / np.sqrt(variance[real])
        trust = real.sum() / (real.sum() + 100)
        shape[-1] = np.maximum.accumulate(trust * np.quantile(z, _LEVELS) + (1 - trust) * _normal())
        u[real] = np.clip((np.argsort(np.argsort(z)) + 0.5) / len(z), 1e-4, 1 - 1e-4)
    normal = special.ndtri(np.clip(u, 1e-4, 1 - 1e-4))
    return replace(model, shape=shape, dependence=_dependence(normal, rows))


def randomized_transform(y: np.ndarray, mean: np.ndarray, variance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Probability transform of counts, spread evenly over each count's mass (uniform if the distribution is right)."""
    from scipy import stats

    size, p = mean**2 / (variance - mean), mean / variance
    high, low = stats.nbinom.cdf(y, size, p), stats.nbinom.cdf(y - 1, size, p)
    return low + (high - low) * rng.random(len(y))


def _dependence(z: np.ndarray, rows: _Rows) -> Dependence:
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


def kinds(panel: Panel) -> tuple[np.ndarray, np.ndarray]:
    """(counts, signed) per series, from the demand seen; series without any follow the majority."""
    whole = (panel.y == np.round(panel.y)).all(1)
    negative = (panel.y < 0).any(1)
    seen = panel.observed.any(1)
    if seen.any():
        whole = np.where(seen, whole, whole[seen].mean() > 0.5)
        if whole[seen].mean() < 0.5:  # a few whole-numbered series among measured ones are a coincidence
            whole = np.zeros(len(whole), bool)
    return np.asarray(whole & ~negative), np.asarray(negative)


def _constant(panel: Panel) -> np.ndarray:
    high = np.where(panel.observed, panel.y, -np.inf).max(1)
    low = np.where(panel.observed, panel.y, np.inf).min(1)
    return high == low


def _some(panel: Panel, rows: np.ndarray) -> Panel:
    return Panel(
        panel.ids[rows],
        panel.calendar,
        panel.start,
        panel.y[rows],
        panel.observed[rows],
        panel.in_stock[rows],
        panel.first[rows],
        {k: v[rows] for k, v in panel.known.items()},
        {k: (v[0], v[1][rows]) for k, v in panel.groups.items()},
        {k: v[rows] for k, v in panel.numeric.items()},
    )


def _checked_horizon(horizon: int) -> int:
    if int(horizon) != horizon or horizon < 1:
        raise NpqError(f"horizon {horizon!r} must be a whole number of periods, at least 1")
    return int(horizon)
