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
        held_out: Share of the history, in stretches from all over it, on which predictions are corrected.
        smoothing: Rows that a category's mean counts for against its own.
        seed: Of row and column samples.
        threads: Threads.
    """

    threshold: float | None = 30.0
    quantiles: tuple[float, ...] = QUANTILES
    trees: int = 300
    learning_rate: float = 0.04
    leaves: int = 63
    min_leaf: int = 100
    held_out: float = 0.2
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
        shifts: Correction of each quantile: by level, of the spread and in units.
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
        lgb = lightgbm()

        def ask(name: str) -> Array:
            booster = lgb.Booster(model_str=self.boosters[name])
            return np.asarray(booster.predict(x, raw_score=True, num_threads=self.settings.threads), float)

        late = np.zeros(0)
        if "late" in self.boosters:
            slope, offset = self.calibration
            late = 1.0 / (1.0 + np.exp(-(slope * ask("late") + offset)))
        elif self.settings.threshold is not None:  # nothing, or all, was late: there was no difference to learn
            late = np.full(len(x), 1.0 / (1.0 + np.exp(-self.calibration[1])))
        levels = self.settings.quantiles
        q = np.stack([ask(f"q{level}") for level in levels], axis=1)
        if self.shifts:
            q = q + np.asarray(self.shifts)[None, :]
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

    Stretches are held out: models trained without them show how far probabilities and quantiles are off, and that correction
    is applied to models trained on everything. The latest stretch alone would teach one season's level to all others.

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
        frame.select(target, *numeric, *categorical), json.dumps(asdict(settings), sort_keys=True), "delay model 1"
    )
    encodings = {name: _encoding(frame[name], y, settings) for name in categorical}
    # A row's own outcome must not speak through its category: each block of time is encoded by the others.
    x = _matrix(frame, numeric, categorical, encodings, folds=_folds(frame, categorical, y, settings))
    every = max(2, round(1.0 / max(settings.held_out, 1e-3)))
    away = (np.arange(len(y)) * _STRETCHES // len(y)) % every == every // 2
    calibration, shifts = (1.0, 0.0), [0.0] * len(settings.quantiles)
    if len(y) >= _STRETCHES and settings.held_out > 0:
        early = DelayModel(settings, list(numeric), list(categorical), encodings, _boost(x[~away], y[~away], settings))
        calibration, shifts = _corrections(early, x[away], y[away])
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
        "feature_fraction": 0.6,
        "bagging_fraction": 0.7,
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


def _corrections(early: DelayModel, x: Array, y: Array) -> tuple[tuple[float, float], list[float]]:
    """Slope and offset of the log-odds by maximum likelihood, and the shift that lets each quantile cover its share."""
    from scipy.optimize import minimize

    lgb = lightgbm()
    calibration = (1.0, 0.0)
    if "late" in early.boosters and early.settings.threshold is not None:
        score = np.asarray(lgb.Booster(model_str=early.boosters["late"]).predict(x, raw_score=True), float)
        late = (y > early.settings.threshold).astype(float)

        def loss(w: Array) -> float:
            z = w[0] * score + w[1]
            # A weak pull towards no correction: one season's surprise is not the next one's.
            return float((np.logaddexp(0.0, z) - late * z).mean() + 1e-4 * ((w[0] - 1.0) ** 2 + w[1] ** 2))

        found = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9})
        calibration = (round(float(found.x[0]), 6), round(float(found.x[1]), 6))
    q = early._predict(x).quantiles
    shifts = [round(float(np.quantile(y - q[:, k], level)), 6) for k, level in enumerate(early.settings.quantiles)]
    return calibration, shifts


# The level between trainings -------------------------------------------------------------------------------------------------


def share_by_evidence(late: Array, evidence: Array, day: NDArray[np.int64]) -> Array:
    """Weights by which evidence that is seen at once tells the share late of a day (least squares over days).

    The share late of a day follows from what is seen of it, such as how late others have just left: that relation stays when
    the level changes, as it does with the season.

    Args:
        late: Whether each row was late (n).
        evidence: What is seen of each row's day, (n, k).
        day: Number of the day of each row (n).

    Returns:
        Intercept and weights (k + 1).
    """
    _, index = np.unique(day, return_inverse=True)
    count = np.bincount(index).astype(float)
    x = np.stack([np.bincount(index, column) / count for column in evidence.T], axis=1)
    y = np.bincount(index, late.astype(float)) / count
    return np.linalg.lstsq(np.column_stack([np.ones(len(y)), x]), y, rcond=None)[0]


def follow_level(
    late: Array,
    evidence: Array,
    weights: Array,
    day: NDArray[np.int64],
    half_life: float = 10.0,
    trust_after: float = 1.0,
) -> Array:
    """Probabilities whose level follows the evidence of earlier days, though no outcome is known yet.

    The log-odds of a day are shifted by those of the share that evidence tells of the days before it, less those of the share
    that was predicted for them, days weighted by their age: adaptation to a new prior without labels (Saerens, Latinne and
    Decaestecker, Neural Computation 14, 2002), with the prior told by evidence. A day's own rows do not enter.

    Args:
        late: Predicted probability (n).
        evidence: As for `share_by_evidence` (n, k).
        weights: Its result (k + 1).
        day: Number of the day of each row (n), in any order.
        half_life: Days after which a day counts half.
        trust_after: Days after which the shift counts half.
    """
    if not len(late):
        return late
    days, index = np.unique(day, return_inverse=True)
    count = np.bincount(index).astype(float)
    seen = weights[0] + sum(
        w * np.bincount(index, column) / count for w, column in zip(weights[1:], evidence.T, strict=True)
    )
    seen, told = np.clip(seen, 0.01, 0.9), np.clip(np.bincount(index, late) / count, 1e-4, 1 - 1e-4)
    shift = np.zeros(len(days))
    sums, weight = np.zeros(2), 0.0
    for k in range(len(days)):
        if k:
            fade = 0.5 ** ((days[k] - days[k - 1]) / half_life)
            sums, weight = fade * sums, fade * weight
            mean = sums / weight
            shift[k] = (_odds(mean[0]) - _odds(mean[1])) * weight / (weight + trust_after)
        sums, weight = sums + np.array([seen[k], told[k]]), weight + 1.0
    p = np.clip(late, 1e-6, 1 - 1e-6)
    return np.asarray(1.0 / (1.0 + np.exp(-(_odds(p) + shift[index]))))


def _odds(p: Any) -> Any:
    return np.log(p / (1.0 - p))
