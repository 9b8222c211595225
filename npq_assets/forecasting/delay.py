"""How late something will be: calibrated probability of being late and quantiles of the delay, from what is known ahead.

Gradient boosting (LightGBM): one classifier for `delay > threshold`, one quantile regression per level. Both are corrected
on stretches of time from all over the history, so that every season has its say, which the models they are taken from have
not learned from; then they are trained on all of it. Where the rows come from,
and what was known when, does not belong here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.boosting import lightgbm
from npq_assets.storage import fingerprint, write_json

Array = NDArray[np.float64]
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class DelaySettings:
    """How the model is trained.

    Attributes:
        threshold: Late means a delay above this (in the unit of the target); None: no classifier.
        quantiles: Levels.
        trees: Trees of the classifier; the quantile regressions have three quarters of it.
        learning_rate: Of each tree.
        leaves: Leaves of a tree.
        min_leaf: Rows in a leaf at least.
        folds: Parts of the history, of stretches from all over it, each predicted by a model of the others to correct
            probabilities and quantiles; below 2: no correction.
        smoothing: Rows that a category's mean counts for against its own.
        seed: Of row and column samples.
        threads: Threads.
    """

    threshold: float | None = 30.0
    quantiles: tuple[float, ...] = QUANTILES
    trees: int = 160
    learning_rate: float = 0.06
    leaves: int = 31
    min_leaf: int = 200
    folds: int = 2
    smoothing: float = 50.0
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True)
class DelayForecast:
    """What was predicted of each row.

    Attributes:
        late: Probability of a delay above the threshold (n); empty without a threshold.
        quantiles: Delay at each level (n, levels), never crossing.
        levels: The levels.
    """

    late: Array
    quantiles: Array
    levels: tuple[float, ...]


@dataclass
class DelayModel:
    """A trained model.

    Attributes:
        settings: How it was trained.
        numeric: Names of the numeric features.
        categorical: Names of the categories.
        encodings: By category: value -> (mean delay, share late, log of its rows), smoothed.
        boosters: LightGBM models as text, by `late` and level.
        calibration: Slope and intercept of the classifier's log-odds.
        shifts: Correction of each quantile, in widths of the row's own middle half.
        version: Hash of what it learned from.
    """

    settings: DelaySettings
    numeric: list[str]
    categorical: list[str]
    encodings: dict[str, dict[str, tuple[float, float, float]]]
    boosters: dict[str, str] = field(repr=False)
    calibration: tuple[float, float] = (1.0, 0.0)
    shifts: list[float] = field(default_factory=list)
    version: str = ""

    def predict(self, frame: pl.DataFrame) -> DelayForecast:
        """Predicts the delay of each row of `frame`; a category never seen counts as average."""
        x = _matrix(frame, self.numeric, self.categorical, self.encodings)
        return self._predict(x)

    def _predict(self, x: Array) -> DelayForecast:
        late = np.zeros(0)
        if "late" in self.boosters:
            slope, offset = self.calibration
            late = 1.0 / (1.0 + np.exp(-(slope * _ask(self.boosters["late"], x, self.settings.threads) + offset)))
        elif self.settings.threshold is not None:  # nothing, or all, was late: there was no difference to learn
            late = np.full(len(x), 1.0 / (1.0 + np.exp(-self.calibration[1])))
        levels = self.settings.quantiles
        q = np.stack([_ask(self.boosters[f"q{level}"], x, self.settings.threads) for level in levels], axis=1)
        q = np.sort(q, axis=1)
        if self.shifts:
            q = q + np.asarray(self.shifts)[None, :] * _width(q, levels)[:, None]
        return DelayForecast(late, np.sort(q, axis=1), levels)

    def save(self, folder: Path) -> None:
        """Writes the model; the same model gives the same bytes."""
        content = {
            "settings": asdict(self.settings),
            "numeric": self.numeric,
            "categorical": self.categorical,
            "encodings": self.encodings,
            "boosters": self.boosters,
            "calibration": list(self.calibration),
            "shifts": self.shifts,
            "version": self.version,
        }
        write_json(content, folder / "delay.json")


def load(folder: Path) -> DelayModel | None:
    """A stored model, or None."""
    place = folder / "delay.json"
    if not place.exists():
        return None
    content = json.loads(place.read_text())
    settings = {**content["settings"], "quantiles": tuple(content["settings"]["quantiles"])}
    return DelayModel(
        DelaySettings(**settings),
        content["numeric"],
        content["categorical"],
        {c: {v: (e[0], e[1], e[2]) for v, e in known.items()} for c, known in content["encodings"].items()},
        content["boosters"],
        (content["calibration"][0], content["calibration"][1]),
        content["shifts"],
        content["version"],
    )


def train(
    frame: pl.DataFrame,
    target: str,
    numeric: Sequence[str],
    categorical: Sequence[str] = (),
    settings: DelaySettings | None = None,
) -> DelayModel:
    """Trains on `frame`, whose rows stand in the order of time.

    Stretches from all over the history are predicted by models trained without them, which shows how far probabilities and
    quantiles are off; that correction is applied to models trained on everything. The latest stretch alone would teach one
    season's level to all others.

    Args:
        frame: Rows with a known delay, the oldest first.
        target: Column of the delay.
        numeric: Columns of numbers; null is missing.
        categorical: Columns of categories, encoded by what was seen of them.
        settings: How.

    Raises:
        ValueError: There are no rows.
    """
    settings = settings or DelaySettings()
    if frame.is_empty():
        raise ValueError("no rows to learn a delay from")
    y = frame[target].cast(pl.Float64).to_numpy()
    version = fingerprint(
        frame.select(target, *numeric, *categorical), json.dumps(asdict(settings), sort_keys=True), "delay model 2"
    )
    encodings = {name: _encoding(frame[name], y, settings) for name in categorical}
    # A row's own outcome must not speak through its category: each block of time is encoded by the others.
    x = _matrix(frame, numeric, categorical, encodings, folds=_folds(frame, categorical, y, settings))
    calibration, shifts = (1.0, 0.0), [0.0] * len(settings.quantiles)
    if len(y) >= _STRETCHES and settings.folds > 1:
        fold = (np.arange(len(y)) * _STRETCHES // len(y)) % settings.folds
        score, q = np.full(len(y), np.nan), np.zeros((len(y), len(settings.quantiles)))
        for k in range(settings.folds):
            away = fold == k
            early = DelayModel(
                settings, list(numeric), list(categorical), encodings, _boost(x[~away], y[~away], settings)
            )
            if "late" in early.boosters:
                score[away] = _ask(early.boosters["late"], x[away], settings.threads)
            q[away] = early._predict(x[away]).quantiles
        calibration, shifts = _corrections(score, q, y, settings)
    if settings.threshold is not None and len(np.unique(y > settings.threshold)) == 1:
        share = (float((y > settings.threshold).sum()) + 0.5) / (len(y) + 1.0)
        calibration = (0.0, round(float(np.log(share / (1.0 - share))), 6))
    return DelayModel(
        settings, list(numeric), list(categorical), encodings, _boost(x, y, settings), calibration, shifts, version
    )


def _encoding(values: pl.Series, y: Array, settings: DelaySettings) -> dict[str, tuple[float, float, float]]:
    late = (y > (settings.threshold if settings.threshold is not None else float(np.median(y)))).astype(float)
    found = (
        pl.DataFrame(
            {"v": values.cast(pl.String).fill_null(""), "y": np.clip(y, *np.quantile(y, [0.01, 0.99])), "l": late}
        )
        .group_by("v", maintain_order=True)
        .agg(pl.col("y").sum(), pl.col("l").sum(), pl.len().alias("n"))
        .sort("v")
    )
    k = settings.smoothing
    base_y, base_l = float(np.clip(y, *np.quantile(y, [0.01, 0.99])).mean()), float(late.mean())
    return {
        row["v"]: (
            round((row["y"] + k * base_y) / (row["n"] + k), 9),
            round((row["l"] + k * base_l) / (row["n"] + k), 9),
            round(float(np.log1p(row["n"])), 9),
        )
        for row in found.to_dicts()
    } | {"\0": (round(base_y, 9), round(base_l, 9), 0.0)}


_BLOCKS = 5
_STRETCHES = 60


def _folds(
    frame: pl.DataFrame, categorical: Sequence[str], y: Array, settings: DelaySettings
) -> list[tuple[Array, Mapping[str, Mapping[str, tuple[float, float, float]]]]]:
    if not categorical:
        return []
    block = np.arange(len(y)) * _BLOCKS // max(len(y), 1)
    folds: list[tuple[Array, Mapping[str, Mapping[str, tuple[float, float, float]]]]] = []
    for k in range(_BLOCKS):
        others, mine = np.flatnonzero(block != k), np.flatnonzero(block == k)
        if others.size and mine.size:
            part = frame[others]
            folds.append((mine.astype(float), {c: _encoding(part[c], y[others], settings) for c in categorical}))
    return folds


def _matrix(
    frame: pl.DataFrame,
    numeric: Sequence[str],
    categorical: Sequence[str],
    encodings: Mapping[str, Mapping[str, tuple[float, float, float]]],
    folds: Sequence[tuple[Array, Mapping[str, Mapping[str, tuple[float, float, float]]]]] = (),
) -> Array:
    columns = [frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in numeric]
    for name in categorical:
        words = frame[name].cast(pl.String).fill_null("")
        coded = _coded(words, encodings[name])
        for rows, known in folds:
            index = rows.astype(np.int64)
            coded[index] = _coded(words.gather(index), known[name])
        columns += [coded[:, 0], coded[:, 1], coded[:, 2]]
    return np.ascontiguousarray(np.stack(columns, axis=1)) if columns else np.zeros((frame.height, 0))


def _coded(words: pl.Series, known: Mapping[str, tuple[float, float, float]]) -> Array:
    distinct = words.unique(maintain_order=True)
    table = pl.DataFrame({"v": distinct, "c": np.arange(len(distinct))})
    codes = np.array([known.get(v, known["\0"]) for v in distinct.to_list()])
    index = words.to_frame("v").join(table, on="v", how="left", maintain_order="left")["c"].to_numpy()
    return np.array(codes[index], dtype=float)


def _boost(x: Array, y: Array, settings: DelaySettings) -> dict[str, str]:
    lgb = lightgbm()
    common = {
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": min(settings.min_leaf, max(5, len(y) // 20)),
        "feature_fraction": 0.5,
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "lambda_l2": 5.0,
        "max_bin": 127,
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads,
        "verbosity": -1,
    }
    boosters: dict[str, str] = {}

    def fit(name: str, label: Array, trees: int, **objective: Any) -> None:
        data = lgb.Dataset(x, label, params={"max_bin": 127, "verbosity": -1}, free_raw_data=False)
        boosters[name] = lgb.train({**common, **objective}, data, trees).model_to_string()

    if settings.threshold is not None:
        late = (y > settings.threshold).astype(float)
        if 0 < late.sum() < len(late):
            fit("late", late, settings.trees, objective="binary")
    for level in settings.quantiles:
        fit(f"q{level}", y, max(20, settings.trees * 3 // 4), objective="quantile", alpha=level)
    return boosters


def _corrections(score: Array, q: Array, y: Array, settings: DelaySettings) -> tuple[tuple[float, float], list[float]]:
    """Slope and offset of the log-odds by maximum likelihood, and the shift that lets each quantile cover its share.

    Every stretch of the history has its say, each judged by a model that has not seen it: a few stretches alone would pass
    their own luck, common to all rows of a day, on as a level.
    """
    from scipy.optimize import minimize

    calibration = (1.0, 0.0)
    if settings.threshold is not None and np.isfinite(score).all():
        late = (y > settings.threshold).astype(float)

        def loss(w: Array) -> float:
            z = w[0] * score + w[1]
            # A weak pull towards no correction: one season's surprise is not the next one's.
            return float((np.logaddexp(0.0, z) - late * z).mean() + 1e-4 * ((w[0] - 1.0) ** 2 + w[1] ** 2))

        found = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9})
        calibration = (round(float(found.x[0]), 6), round(float(found.x[1]), 6))
    width = _width(q, settings.quantiles)
    wide = width > 1e-9
    if not wide.any():
        return calibration, [0.0] * len(settings.quantiles)
    apart = (y[wide, None] - q[wide]) / width[wide, None]
    return calibration, [round(float(np.quantile(apart[:, k], v)), 6) for k, v in enumerate(settings.quantiles)]


def _width(q: Array, levels: Sequence[float]) -> Array:
    """Width of each row's middle half (n), the unit of its corrections: a quiet row is not moved as a stormy one is."""
    low, high = (int(np.argmin(np.abs(np.asarray(levels) - v))) for v in (0.25, 0.75))
    if low == high:
        return np.ones(len(q))
    return np.asarray(q[:, high] - q[:, low])


def _ask(booster: str, x: Array, threads: int) -> Array:
    found = lightgbm().Booster(model_str=booster).predict(x, raw_score=True, num_threads=threads)
    return np.asarray(found, float)


# The level between trainings -------------------------------------------------------------------------------------------------

_GRID = np.linspace(-1.5, 1.5, 61)


def follow_level(
    forecast: DelayForecast,
    hindsight: DelayForecast,
    day: NDArray[np.int64],
    half_life: float = 10.0,
    trust_after: float = 1.0,
) -> DelayForecast:
    """The forecast with its level following what was seen of the days before each, though no outcome is known yet.

    A season moves the level of delays for weeks before the outcomes that a training needs are there, or are complete. What is
    seen meanwhile (how late others have left) tells a second model, trained on the same history, more of each past row than
    the forecast could know: its probabilities and distributions are soft labels. Before each day the log-odds get the offset
    that lets the probabilities of earlier days add up to those of hindsight, and each quantile the shift, in widths of the
    row's own middle half, that lets it cover its share of hindsight's distributions. This is adaptation to a new prior without
    labels (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002) with the prior told by evidence instead of the
    forecast itself. A day's own rows do not enter, so that the forecast stays one that could have been made before the day.

    Args:
        forecast: What was predicted of each row (n).
        hindsight: What the model that is also told what was seen afterwards says of the same rows; the same levels.
        day: Number of the day of each row (n), in any order; all of a day was seen before the next one.
        half_life: Days after which a day counts half.
        trust_after: Days that the forecast's own level counts for when the first evidence comes.

    Raises:
        ValueError: Rows or levels of the two differ.
    """
    if forecast.levels != hindsight.levels or not len(forecast.quantiles) == len(hindsight.quantiles) == len(day):
        raise ValueError("forecast, hindsight and days must be of the same rows and levels")
    if not len(day):
        return forecast
    days, index = np.unique(day, return_inverse=True)
    count = np.bincount(index).astype(float)

    def by_day(values: Array) -> Array:
        return np.asarray(np.bincount(index, values) / count)

    late = forecast.late
    if len(late):
        odds = _log_odds(late)
        curves = np.stack([by_day(1.0 / (1.0 + np.exp(-(odds + step)))) for step in _GRID], axis=1)
        offset = _offsets(curves, by_day(hindsight.late), days, half_life, trust_after)
        late = 1.0 / (1.0 + np.exp(-(odds + offset[index])))
    q = np.array(forecast.quantiles)
    width = _width(q, forecast.levels)
    moved = np.empty_like(q)
    for k, level in enumerate(forecast.levels):
        curves = np.stack([by_day(_reached(hindsight, q[:, k] + step * width)) for step in _GRID], axis=1)
        offset = _offsets(curves, np.full(len(days), level), days, half_life, trust_after)
        moved[:, k] = q[:, k] + offset[index] * width
    return DelayForecast(np.asarray(late), np.sort(moved, axis=1), forecast.levels)


def _offsets(curves: Array, wanted: Array, days: NDArray[np.int64], half_life: float, trust_after: float) -> Array:
    """For each day the step of the grid at which the rising curves of the days before it reach what was wanted of them.

    At the start the weight of `trust_after` days is on the curve's own value without a step, and fades as days do: a level
    that lasts is followed all the way.
    """
    middle = len(_GRID) // 2
    found = np.zeros(len(days))
    curve, aim, weight, trust = np.zeros(len(_GRID)), 0.0, 0.0, trust_after
    for k in range(len(days)):
        if k:
            fade = 0.5 ** ((days[k] - days[k - 1]) / half_life)
            curve, aim, weight, trust = fade * curve, fade * aim, fade * weight, fade * trust
            mean = curve / weight
            goal = (aim + trust * mean[middle]) / (weight + trust)
            found[k] = np.interp(goal, mean, _GRID)
        curve, aim, weight = curve + curves[k], aim + wanted[k], weight + 1.0
    return found


def _reached(forecast: DelayForecast, at: Array) -> Array:
    """Probability of a delay of at most `at` (n): straight between the quantiles, exponential beyond them."""
    q, level = forecast.quantiles, np.asarray(forecast.levels)
    k = np.clip((at[:, None] >= q).sum(axis=1) - 1, 0, len(level) - 2)
    rows = np.arange(len(q))
    left, right = q[rows, k], q[rows, k + 1]
    share = np.clip((at - left) / np.maximum(right - left, 1e-9), 0.0, 1.0)
    inside = level[k] + share * (level[k + 1] - level[k])
    below = np.maximum(q[:, 1] - q[:, 0], 1e-9) / np.log(level[1] / level[0])
    above = np.maximum(q[:, -1] - q[:, -2], 1e-9) / np.log((1.0 - level[-2]) / (1.0 - level[-1]))
    under = level[0] * np.exp(np.minimum((at - q[:, 0]) / below, 0.0))
    over = 1.0 - (1.0 - level[-1]) * np.exp(-np.maximum((at - q[:, -1]) / above, 0.0))
    return np.asarray(np.where(at < q[:, 0], under, np.where(at > q[:, -1], over, inside)))


def _log_odds(p: Array) -> Array:
    p = np.clip(p, 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(p / (1.0 - p)))
