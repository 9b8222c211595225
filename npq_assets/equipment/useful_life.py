"""Remaining useful life from run-to-failure histories of sensors, with intervals.

Remaining life is capped: far from the end there is nothing to see (Heimes 2008). Features are what an engineer would look at:
smoothed levels, the change since the machine was new, recent slopes, for each sensor and for a few indices of wear that the sensors
share; only readings up to the cycle itself. The learner is chosen by cross-validation over whole machines, judged at cycles drawn
like those at which the question is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from npq_assets.equipment.learners import Array, Learner, averaged, boosted, folds
from npq_assets.errors import NpqError

CAP = 125.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# A late answer costs more than an early one: answers lean to the early side as far as this share of the squared error allows.
LEANS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
LEAN_SLACK = 0.002
# Ages at which each held-out machine is judged: with few of them the draw decides which learner is chosen.
DRAWS = 20
NEW = 10  # cycles that show the machine as it was when new


@dataclass(frozen=True)
class UsefulLife:
    """A prediction for every machine and how it came about.

    Attributes:
        prediction: unit, rul_pred (cycles), and q0.05 … q0.95.
        chosen: Name of the learner.
        losses: Root mean squared error of each candidate in cross-validation (cycles).
        lean: Cycles by which answers are earlier than the learner says, chosen in cross-validation.
        nasa: Score of the leaning answers there, per 100 machines (late answers cost more than early ones).
        nasa_upright: The same of the answers as the learner gives them.
        rmse: Root mean squared error of the leaning answers there (cycles).
        coverage: Share of held-out machines inside the 90 % interval.
    """

    prediction: pl.DataFrame
    chosen: str
    losses: dict[str, float]
    lean: float
    nasa: float
    nasa_upright: float
    rmse: float
    coverage: float


@dataclass(frozen=True)
class WearIndices:
    """Directions in which the sensors move together as machines wear: what single sensors hide in noise, their sum shows.

    Attributes:
        columns: Sensors, in order.
        weights: (sensors, indices): right singular vectors of the changes since new, each sensor in units of its noise.
    """

    columns: tuple[str, ...]
    weights: Array

    def values(self, readings: pl.DataFrame) -> Array:
        """(rows, indices) for the rows as they stand."""
        return np.asarray(readings.select(pl.col(self.columns).cast(pl.Float64)).to_numpy() @ self.weights, float)


def wear_indices(train: pl.DataFrame, columns: list[str], count: int = 3) -> WearIndices:
    """Principal components, without centring, of the sensors' changes since new; remaining lives are not looked at."""
    rows = train.sort("unit", "cycle")
    change = _sensor_features(rows, columns).select(f"{c}_change" for c in columns).to_numpy()
    readings = rows.select(pl.col(columns).cast(pl.Float64)).to_numpy()
    # The noise of a sensor: how much it moves from one cycle to the next.
    noise = np.std(np.diff(readings, axis=0), axis=0) + 1e-9
    weights = np.linalg.svd(change / noise, full_matrices=False)[2][:count].T
    signs = np.sign(weights[np.abs(weights).argmax(axis=0), np.arange(weights.shape[1])])
    return WearIndices(tuple(columns), weights * signs / noise[:, None])


def features(readings: pl.DataFrame, columns: list[str], indices: WearIndices) -> pl.DataFrame:
    """One row a unit and cycle: unit, cycle and what is known then.

    Args:
        readings: unit, cycle, and the columns.
        columns: Sensors to use.
        indices: Of wear, from the machines learned from.
    """
    rows = readings.sort("unit", "cycle")
    table = _sensor_features(rows, columns)
    wear = indices.values(rows)
    index = rows.select("unit", "cycle").with_columns(pl.Series(f"wear{j}", wear[:, j]) for j in range(wear.shape[1]))
    made = []
    for j in range(wear.shape[1]):
        value = pl.col(f"wear{j}")
        new = _when_new(value)
        level = value.ewm_mean(span=10, adjust=True).over("unit")
        made += [
            (level - new).alias(f"wear{j}_change"),
            (value.rolling_mean(30, min_samples=1).over("unit") - new).alias(f"wear{j}_mean"),
            (level - value.ewm_mean(span=30, adjust=True).over("unit")).alias(f"wear{j}_slope"),
            ((level - new) / pl.col("cycle")).alias(f"wear{j}_rate"),
        ]
        for window in (15, 25):
            mean = value.rolling_mean(window, min_samples=1)
            made.append((mean - mean.shift(window)).over("unit").alias(f"wear{j}_step{window}"))
    return pl.concat([table, index.select(made)], how="horizontal")


def _when_new(value: pl.Expr) -> pl.Expr:
    """The mean of the first cycles, of those seen so far."""
    young = value.filter(pl.col("cycle") <= NEW)
    return (
        pl.when(pl.col("cycle") < NEW)
        .then(value.cum_sum() / pl.int_range(1, pl.len() + 1))
        .otherwise(young.mean())
        .over("unit")
    )


def _sensor_features(readings: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Level, change since new, slopes and noise of each sensor."""
    rows = readings.sort("unit", "cycle")
    made = []
    for name in columns:
        value = pl.col(name).cast(pl.Float64)
        new = _when_new(value)
        fast = value.ewm_mean(span=5, adjust=True).over("unit")
        slow = value.ewm_mean(span=20, adjust=True).over("unit")
        slower = value.ewm_mean(span=60, adjust=True).over("unit")
        made += [
            fast.alias(f"{name}_level"),
            (slow - new).alias(f"{name}_change"),
            (fast - slow).alias(f"{name}_slope"),
            (slow - slower).alias(f"{name}_trend"),
            value.rolling_std(20, min_samples=3).over("unit").alias(f"{name}_noise"),
        ]
    return rows.select("unit", "cycle", pl.col("cycle").cast(pl.Float64).alias("age"), *made)


def informative(readings: pl.DataFrame) -> list[str]:
    """Sensors that vary at all."""
    names = [c for c in readings.columns if c not in ("unit", "cycle") and readings[c].dtype.is_numeric()]
    return [
        c for c in names if float(np.std(readings[c].cast(pl.Float64).to_numpy())) > 1e-9 and readings[c].n_unique() > 2
    ]


def _without_gaps(readings: pl.DataFrame, usual: pl.DataFrame) -> pl.DataFrame:
    """The rows with each sensor's last reading where one is missing or no number, and its usual one before the first.

    One gap would otherwise leave the sensor unknown for the rest of the machine's life, and the answer a guess by age alone.

    Args:
        readings: unit, cycle, sensors.
        usual: One row: the sensors' medians, for those to look at.

    Raises:
        NpqError: A sensor of a machine was never read.
    """
    names = [name for name in usual.columns if usual[name][0] is not None]
    number = [pl.col(name).cast(pl.Float64) for name in names]
    rows = readings.sort("unit", "cycle").with_columns(
        pl.when(n.is_finite()).then(n).alias(n.meta.output_name()) for n in number
    )
    mute = rows.group_by("unit", maintain_order=True).agg(pl.col(names).is_null().all())
    for name in names:
        if mute[name].any():
            unit = mute.filter(pl.col(name))["unit"][0]
            raise NpqError(
                f"useful life: {name} of machine {unit} was never read; land its readings, or leave {name} out"
            )
    return rows.with_columns(
        pl.col(name).forward_fill().over("unit").fill_null(float(usual[name][0])) for name in names
    )


def candidates() -> dict[str, Learner]:
    """Learners to choose from."""
    large = boosted("regression", trees=350, leaves=15, rate=0.03, least=60, columns=0.3)
    small = boosted("regression", trees=300, leaves=8, rate=0.05, least=100, columns=0.3)
    return {"boosted trees": large, "small boosted trees": small, "their mean": averaged(large, small)}


def predict(train: pl.DataFrame, asked: pl.DataFrame, *, cap: float = CAP, seed: int = 0) -> UsefulLife:
    """Remaining life of every unit of `asked` at its last cycle.

    Args:
        train: unit, cycle, sensors of machines that ran to failure at their last cycle.
        asked: The same of machines that still run.
        cap: Longest remaining life that is told apart (cycles).
        seed: Of the cycles at which held-out machines are judged.

    Raises:
        NpqError: Fewer than ten machines have failed, columns differ, or a machine asked for has a sensor that was never read.
    """
    if train["unit"].n_unique() < 10:
        raise NpqError(f"useful life: {train['unit'].n_unique()} machines ran to failure; at least 10 are needed")
    missing = set(train.columns) - set(asked.columns)
    if missing:
        raise NpqError(f"useful life: the machines asked for have no {', '.join(sorted(missing))}")
    usual = train.select(pl.selectors.numeric().exclude("unit", "cycle").cast(pl.Float64)).select(
        pl.all().filter(pl.all().is_finite()).median()
    )
    train = _without_gaps(train, usual)
    columns = informative(train)
    asked = _without_gaps(asked, usual.select(columns))
    indices = wear_indices(train, columns)
    known = features(train, columns, indices)
    units, cycle = known["unit"].to_numpy(), known["cycle"].to_numpy()
    last = known.select(pl.col("cycle").max().over("unit"))["cycle"].to_numpy()
    life = np.minimum(last - cycle, cap).astype(float)
    x = known.drop("unit", "cycle").to_numpy()
    # Neighbouring cycles say the same: every third is enough to learn from.
    thin = (cycle % 3 == 0) | (last - cycle < 30)
    ages = asked.group_by("unit", maintain_order=True).agg(pl.col("cycle").max())["cycle"].sort().to_numpy()
    judged_at = _asked_like(units, cycle, last, ages, seed)
    held_out: dict[str, Array] = {name: np.full(len(x), np.nan) for name in candidates()}
    base = [name for name in candidates() if name != "their mean"]
    for learn, judge in folds(units, 5, seed):
        rows, at = learn[thin[learn]], judge[judged_at[judge]]
        for name in base:
            held_out[name][at] = candidates()[name](x[rows], life[rows], x[at])
    held_out["their mean"] = np.mean([held_out[name] for name in base], axis=0)
    losses = {
        name: float(np.sqrt(np.mean((np.clip(p[judged_at], 0, cap) - life[judged_at]) ** 2)))
        for name, p in held_out.items()
    }
    chosen = min(losses, key=lambda name: (losses[name], name))
    guess, truth = np.clip(held_out[chosen][judged_at], 0, cap), life[judged_at]
    latest = features(asked, columns, indices).group_by("unit", maintain_order=True).last()
    point = np.clip(candidates()[chosen](x[thin], life[thin], latest.drop("unit", "cycle").to_numpy()), 0, cap)
    edges = _interval(guess, truth, point, cap)
    inside = _interval(guess, truth, guess, cap)
    coverage = float(np.mean((truth >= inside[:, 0] - 1e-9) & (truth <= inside[:, -1] + 1e-9)))
    lean = _lean(truth, guess)
    leaning = np.clip(guess - lean, 0, cap)
    frame = latest.select("unit").with_columns(
        pl.Series("rul_pred", np.clip(point - lean, 0, cap)),
        *(pl.Series(f"q{q:g}", edges[:, k]) for k, q in enumerate(QUANTILES)),
    )
    hundred = 100 / len(truth)
    return UsefulLife(
        frame, chosen, losses, lean, hundred * nasa_score(truth, leaning), hundred * nasa_score(truth, guess),
        float(np.sqrt(np.mean((leaning - truth) ** 2))), coverage,
    )  # fmt: skip


def _lean(truth: Array, guess: Array) -> float:
    """The lean of least NASA score whose squared error is at most `LEAN_SLACK` above that of no lean."""
    most = (1 + LEAN_SLACK) * float(np.mean((guess - truth) ** 2))
    open_to = [lean for lean in LEANS if float(np.mean((np.maximum(guess - lean, 0) - truth) ** 2)) <= most]
    return min(open_to, key=lambda lean: (nasa_score(truth, np.maximum(guess - lean, 0)), lean))


def nasa_score(truth: Array, guess: Array) -> float:
    """Sum over machines of exp(-d/13) - 1 if d = guess - truth < 0, else exp(d/10) - 1 (Saxena et al. 2008)."""
    error = guess - truth
    return float(np.where(error < 0, np.exp(-error / 13) - 1, np.exp(error / 10) - 1).sum())


def _asked_like(units: np.ndarray, cycle: np.ndarray, last: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    """Cycles of the training machines at which they look like those asked about: ages drawn from theirs, `DRAWS` a machine."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(units), bool)
    for unit in np.unique(units):
        mine = np.flatnonzero(units == unit)
        ages = asked[asked < last[mine[0]]]
        draws = rng.choice(ages, DRAWS) if len(ages) else rng.integers(1, last[mine[0]] + 1, DRAWS)
        chosen[mine[np.isin(cycle[mine], draws)]] = True
    return chosen


def _interval(guess: Array, truth: Array, point: Array, cap: float, neighbours: int = 24 * DRAWS) -> Array:
    """Quantiles of the held-out errors of similar guesses, added to each point (len(point), quantiles)."""
    error = truth - guess
    count = min(neighbours, len(guess))
    rows = []
    for value in point:
        near = np.argsort(np.abs(guess - value), kind="stable")[:count]
        rows.append(np.clip(value + np.quantile(error[near], QUANTILES), 0, cap))
    return np.array(rows).reshape(len(point), len(QUANTILES))
