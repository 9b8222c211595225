"""Defect probability of a unit, the alarm that costs least, control charts with run rules, and capability.

Where measurements come from and what happens to an alarmed unit do not belong here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.equipment.learners import (
    Array,
    Learner,
    averaged,
    beside_known,
    boosted,
    folds,
    random_trees,
    smooth_classes,
)
from npq_assets.errors import NpqError

Flags = NDArray[np.bool_]


# --- Features ------------------------------------------------------------------------------------------------------------------


def machining_features(
    torque: Array, speed: Array, wear: Array, air: Array, process: Array, grade: Array | None = None
) -> dict[str, Array]:
    """What strains a cutting process, from what is measured on it.

    Args:
        torque: Nm.
        speed: Revolutions a minute.
        wear: Minutes of use of the tool.
        air: Temperature of the room (K).
        process: Temperature of the process (K).
        grade: Rank of the product's quality, if there are several.

    Returns:
        The measurements; `power` (W: torque x angular speed), `heat_gap` (K: what drives the heat away) and `strain` (min Nm: a
        worn tool under torque).
    """
    made = {"torque": torque, "speed": speed, "wear": wear, "air": air, "process": process}
    made |= {"power": torque * speed * 2 * np.pi / 60, "heat_gap": process - air, "strain": torque * wear}
    return made if grade is None else made | {"grade": grade}


def blemish_features(frame: pl.DataFrame) -> pl.DataFrame:
    """Shape, brightness and place of surface blemishes, added to the measurements of an optical inspection.

    Args:
        frame: X_Minimum, X_Maximum, Y_Minimum, Y_Maximum, Pixels_Areas, X_Perimeter, Y_Perimeter, Sum_of_Luminosity,
            Minimum_of_Luminosity, Maximum_of_Luminosity, Length_of_Conveyer, and any more.

    Returns:
        The measurements and the features; logarithms where sizes span powers of ten, since extremely randomized trees cut evenly.
    """
    c = pl.col
    wide, high = c("X_Maximum") - c("X_Minimum"), c("Y_Maximum") - c("Y_Minimum")
    area = c("Pixels_Areas").cast(pl.Float64).clip(1)
    right = c("Length_of_Conveyer") - c("X_Maximum")
    edge = pl.min_horizontal(c("X_Minimum"), right)
    round_it = c("X_Perimeter") + c("Y_Perimeter")
    light = c("Sum_of_Luminosity") / area
    return frame.with_columns(
        width=wide,
        height=high,
        aspect=wide / (high + 1),
        brightness=light,
        darkest=c("Minimum_of_Luminosity") / light.clip(1),
        brightest=c("Maximum_of_Luminosity") / light.clip(1),
        contrast=c("Maximum_of_Luminosity") - c("Minimum_of_Luminosity"),
        filled=area / ((wide + 1) * (high + 1)),
        roundness=round_it**2 / area,
        raggedness_across=c("X_Perimeter") / (wide + 1),
        raggedness_along=c("Y_Perimeter") / (high + 1),
        outline=c("X_Perimeter") / c("Y_Perimeter").clip(1),
        across=c("X_Minimum") / c("Length_of_Conveyer").clip(1),
        middle=(c("X_Minimum") + c("X_Maximum")) / 2 / c("Length_of_Conveyer").clip(1),
        right=right,
        to_edge=edge,
        log_along=c("Y_Minimum").clip(0).log1p(),
        log_area=area.log(),
        log_outline=round_it.clip(0).log1p(),
        log_light=c("Sum_of_Luminosity").clip(0).log1p(),
        log_width=wide.clip(0).log1p(),
        log_height=high.clip(0).log1p(),
        log_edge=edge.clip(0).log1p(),
    )


PLACE = ("place_length", "place_thickness", "place_steel", "place_along")


def blemish_place(frame: pl.DataFrame) -> pl.DataFrame:
    """Which plate a blemish is on and where along it, in units in which another plate is far away: the columns of `PLACE`.

    Plates have no number in such data; length of the conveyor, thickness and kind of steel tell most of them apart. What went wrong
    on a plate went wrong in one way: blemishes near one another are mostly of one kind.

    Args:
        frame: Length_of_Conveyer, Steel_Plate_Thickness, TypeOfSteel_A300, Y_Minimum.
    """
    c = pl.col
    return frame.select(
        place_length=c("Length_of_Conveyer") / 10.0,
        place_thickness=25.0 * c("Steel_Plate_Thickness").clip(1).log(),
        place_steel=25.0 * c("TypeOfSteel_A300"),
        place_along=2.0 * c("Y_Minimum").clip(1).log(),
    )


# --- Defects -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DefectModel:
    """One forest a kind of defect; a unit is good if it has none.

    Bagged trees (Breiman 1996) rather than boosted ones: the limits at which a process fails are sharp and cross single features
    that mean something, and a tree finds them from few cases.

    Attributes:
        names: Features, in order.
        forests: Fitted classifier by kind of defect.
        usual: Median of every feature among good units, for the reasons.
        spread: Half the width of their middle half.
    """

    names: tuple[str, ...]
    forests: dict[str, Any]
    usual: Array
    spread: Array

    def by_kind(self, x: Array) -> dict[str, Array]:
        """Probability of each kind of defect."""
        return {kind: np.asarray(f.predict_proba(x)[:, 1], float) for kind, f in self.forests.items()}

    def probability(self, x: Array) -> Array:
        """Probability of any defect, kinds taken as independent given the measurements."""
        return any_of(self.by_kind(x))

    def reasons(self, x: Array, count: int = 2) -> list[list[str]]:
        """The features that raise each row's probability most: what it would fall by, were the feature as among good units."""
        whole = self.probability(x)
        falls = np.empty(x.shape)
        for k in range(x.shape[1]):
            changed = x.copy()
            changed[:, k] = self.usual[k]
            falls[:, k] = whole - self.probability(changed)
        found = []
        far = np.abs(x - self.usual) / self.spread
        for i in range(len(x)):
            best = [k for k in np.argsort(-falls[i], kind="stable")[:count] if falls[i, k] > 0]
            if not best and whole[i] >= 0.5:  # no feature alone: say what is farthest from usual
                best = np.argsort(-far[i], kind="stable")[:count].tolist()
            found.append(
                [
                    f"{self.names[k]} {x[i, k]:.4g} is {'above' if x[i, k] > self.usual[k] else 'below'} the usual "
                    f"{self.usual[k]:.4g}" + (f" (+{100 * falls[i, k]:.0f} points)" if falls[i, k] > 0 else "")
                    for k in best
                ]
            )
        return found


def any_of(kinds: Mapping[str, Array]) -> Array:
    """1 - product of (1 - p)."""
    return np.asarray(1.0 - np.prod([1.0 - p for p in kinds.values()], axis=0), float)


def learn_defects(names: list[str], x: Array, defects: Mapping[str, Array], *, trees: int = 100) -> DefectModel:
    """Fits one forest for every kind of defect.

    Args:
        names: Features.
        x: (units, features).
        defects: 0/1 of every unit by kind of defect; kinds that never occur are left out.
        trees: Trees a forest.

    Raises:
        NpqError: No kind of defect occurs and spares some unit.
    """
    from sklearn.ensemble import RandomForestClassifier

    kinds = {k: np.asarray(v) > 0 for k, v in defects.items()}
    kinds = {k: v for k, v in kinds.items() if 0 < v.sum() < len(v)}
    if not kinds:
        raise NpqError("quality: no unit with and none without a defect; there is nothing to learn")
    forests = {
        kind: RandomForestClassifier(trees, min_samples_leaf=3, max_features=None, random_state=0, n_jobs=1).fit(x, y)
        for kind, y in kinds.items()
    }
    good = ~np.any(list(kinds.values()), axis=0)
    low, usual, high = np.quantile(x[good] if good.any() else x, (0.25, 0.5, 0.75), axis=0)
    return DefectModel(tuple(names), forests, usual, np.maximum((high - low) / 2, 1e-9))


def held_out_probability(
    names: list[str], x: Array, defects: Mapping[str, Array], count: int = 5, trees: int = 100
) -> Array:
    """Probability of any defect by models that have not seen the unit."""
    p = np.zeros(len(x))
    for learn, judge in folds(np.arange(len(x)), count):
        model = learn_defects(names, x[learn], {k: v[learn] for k, v in defects.items()}, trees=trees)
        p[judge] = model.probability(x[judge])
    return p


def classifier(classes: int, *, place: Sequence[int] = (), trees: int = 150, forest: int = 300) -> Learner:
    """Kind of defect among several: mean of boosted trees, extremely randomized trees and a smooth learner (one column a kind).

    Args:
        classes: How many kinds.
        place: Columns that say where a unit lies; then kinds known near it count (see `learners.beside_known`).
        trees: Boosting rounds.
        forest: Randomized trees.
    """
    mean = averaged(
        boosted("multiclass", classes=classes, trees=trees, leaves=12, rate=0.06, least=8, columns=0.3),
        random_trees("classes", trees=forest, least=1, columns=0.4, classes=classes),
        smooth_classes(classes=classes),
    )
    return beside_known(mean, place, classes=classes) if place else mean


# --- Alarms --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alarm:
    """A threshold on the probability and what it comes to on the units it was chosen on.

    Attributes:
        threshold: Alarm from this probability on.
        value: Cost a unit, or F1.
    """

    threshold: float
    value: float


def _sweep(y: Array, p: Array) -> tuple[Array, Array, Array]:
    """Distinct thresholds, falling; hits and alarms at each."""
    order = np.argsort(-p, kind="stable")
    last = np.r_[p[order][1:] != p[order][:-1], True]
    return p[order][last], np.cumsum(y[order])[last], np.arange(1.0, len(p) + 1)[last]


def cheapest_alarm(y: Array, p: Array, *, miss: float, inspection: float) -> Alarm:
    """The threshold of least cost: an alarm costs an inspection, a defect without an alarm a miss.

    With calibrated p it is inspection / miss (Elkan 2001); chosen on held-out units it also holds for p that are not. Never to
    alarm is a choice, with an infinite threshold.
    """
    if miss <= 0 or inspection < 0:
        raise NpqError("quality: a miss must cost more than 0 and an inspection not less than 0")
    threshold, hits, alarms = _sweep(y, p)
    cost = (alarms * inspection + (y.sum() - hits) * miss) / len(y)
    none = float(y.mean() * miss)
    k = int(np.argmin(cost))
    return Alarm(float(threshold[k]), float(cost[k])) if cost[k] < none else Alarm(float("inf"), none)


def f1_alarm(y: Array, p: Array, slack: float = 0.003) -> Alarm:
    """The threshold of greatest F1; of those within `slack` of it the median, so that no single unit decides."""
    threshold, hits, alarms = _sweep(y, p)
    f1 = 2 * hits / (alarms + max(y.sum(), 1e-9))
    near = threshold[f1 >= f1.max() - slack]
    chosen = float(near[len(near) // 2])
    at = int(np.flatnonzero(threshold == chosen)[0])
    return Alarm(chosen, float(f1[at]))


# --- Control charts ------------------------------------------------------------------------------------------------------------

RULES = {
    1: "a point beyond 3 sigma",
    2: "nine in a row on one side of the centre",
    3: "six in a row rising or falling",
    4: "fourteen in a row alternating",
    5: "two of three beyond 2 sigma on one side",
    6: "four of five beyond 1 sigma on one side",
    7: "fifteen in a row within 1 sigma",
    8: "eight in a row beyond 1 sigma on both sides",
}


@dataclass(frozen=True)
class ControlChart:
    """Centre and spread of a process in control, from its own short-term variation.

    Attributes:
        centre: Mean.
        sigma: Standard deviation of a point.
    """

    centre: float
    sigma: float

    @property
    def limits(self) -> tuple[float, float]:
        """Lower and upper control limit."""
        return self.centre - 3 * self.sigma, self.centre + 3 * self.sigma

    def signals(self, values: Array) -> dict[int, Flags]:
        """Which points end a run against each of Nelson's rules (Nelson 1984; rules 1, 5, 6 and 2 are Western Electric's)."""
        z = (np.asarray(values, float) - self.centre) / self.sigma
        n, up, down = len(z), z > 0, z < 0
        step = np.r_[np.nan, np.diff(z)]
        turn = np.r_[False, False, step[1:-1] * step[2:] < 0] if n > 2 else np.zeros(n, bool)
        outside = np.abs(z) > 1
        both = _count(z > 1, 8) * _count(z < -1, 8) > 0
        return {
            1: np.abs(z) > 3,
            2: (_count(up, 9) >= 9) | (_count(down, 9) >= 9),
            3: (_count(step > 0, 5) >= 5) | (_count(step < 0, 5) >= 5),
            4: _count(turn, 12) >= 12,
            5: ((_count(z > 2, 3) >= 2) & (z > 2)) | ((_count(z < -2, 3) >= 2) & (z < -2)),
            6: ((_count(z > 1, 5) >= 4) & (z > 1)) | ((_count(z < -1, 5) >= 4) & (z < -1)),
            7: _count(np.abs(z) < 1, 15) >= 15,
            8: (_count(outside, 8) >= 8) & both,
        }


def _count(flag: Flags, window: int) -> NDArray[np.int64]:
    """How many of the last `window` points, this one included, are flagged."""
    total = np.r_[0, np.cumsum(flag.astype(np.int64))]
    end = np.arange(1, len(flag) + 1)
    return np.asarray(total[end] - total[np.maximum(end - window, 0)], np.int64)


def individuals_chart(values: Array) -> ControlChart:
    """Chart of single values: sigma from the mean moving range / 1.128 (d2 of two; Montgomery, ch. 6).

    Raises:
        NpqError: Fewer than 20 values, a missing one, or no variation (a stuck sensor).
    """
    values = np.asarray(values, float)
    if len(values) < 20 or not np.isfinite(values).all():
        raise NpqError(
            f"control chart: {int(np.isfinite(values).sum())} usable of {len(values)} values; 20 without gaps are needed"
        )
    sigma = float(np.abs(np.diff(values)).mean() / 1.128)
    if sigma <= 0:
        raise NpqError("control chart: the values do not vary; look whether the sensor is stuck")
    return ControlChart(float(values.mean()), sigma)


@dataclass(frozen=True)
class Capability:
    """How a process fits its tolerance; `None` where a limit is missing.

    Attributes:
        cp: Width of the tolerance / 6 sigma, short-term.
        cpk: Distance of the mean from the nearer limit / 3 sigma, short-term.
        ppk: As cpk with the overall standard deviation.
        outside: Share of values outside.
    """

    cp: float | None
    cpk: float
    ppk: float
    outside: float


def capability(values: Array, lower: float | None = None, upper: float | None = None) -> Capability:
    """Cp, Cpk and Ppk (ISO 22514-2, normal values).

    Raises:
        NpqError: No limit, limits crossed, or values no chart can be made of.
    """
    if (lower is None and upper is None) or (lower is not None and upper is not None and lower >= upper):
        raise NpqError(f"capability: the tolerance {lower} to {upper} is empty")
    chart = individuals_chart(values)
    low = -np.inf if lower is None else lower
    high = np.inf if upper is None else upper
    near = min(high - chart.centre, chart.centre - low)
    whole = float(np.std(values, ddof=1))
    return Capability(
        None if lower is None or upper is None else (upper - lower) / (6 * chart.sigma),
        float(near / (3 * chart.sigma)),
        float(near / (3 * whole)),
        float(np.mean((values < low) | (values > high))),
    )
