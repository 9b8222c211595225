"""Settings of machines that cost least in scrap, energy and time, as far as the log can carry that.

A response surface by machine, convex, with the signs that engineers have fixed; an optimum within limits, ramps and what the
log has seen; and the evidence on which a change is withdrawn. Who approves and publishes does not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.equipment.learners import Array
from npq_assets.errors import NpqError

RESPONSES = ("scrap", "energy", "minutes")
# Days and changes of settings that a machine's log must hold.
LEAST_DAYS = 60
LEAST_REGIMES = 6
# A setting that never moved by this share of its range has no effect that could be seen.
LEAST_SPAN = 0.04
# Within this share of the days' distances from their middle a combination of settings counts as seen.
SEEN_SHARE = 0.95
# A change pays for itself within so many days, or is not made.
PAYBACK_DAYS = 28.0
# Changes below this share of the range are not worth anybody's attention.
LEAST_CHANGE = 0.01
# Days for which a change is left alone, so that its effect can be seen, and days compared with those after it.
HELD_DAYS = 7
COMPARED_DAYS = 14
LEAST_COMPARED = 5
ONE_SIDED = 0.95
# A day's energy or run time so many times the machine's usual one is a meter's or a unit's mistake, not a day.
FAR_FROM_USUAL = 30.0
# Likewise a setting in force farther outside its limits than so many times their width: limits move, but not so far.
FAR_OUTSIDE = 1.0


@dataclass(frozen=True)
class SettingLimits:
    """A setting of a machine as its engineers have bounded it.

    Attributes:
        name: The setting.
        low: Smallest value allowed.
        high: Largest value allowed.
        current: Value in force.
        ramp: Largest change in one step.
        change_cost: Cost of a change by one unit (money).
        signs: By response: 1 never lowers it, -1 never raises it, 0 unknown.
    """

    name: str
    low: float
    high: float
    current: float
    ramp: float
    change_cost: float = 0.0
    signs: dict[str, int] = field(default_factory=dict)

    def problem(self) -> str | None:
        """Why nothing can be proposed for it, in words; None if it can."""
        numbers = (self.low, self.high, self.current, self.ramp, self.change_cost)
        if not all(np.isfinite(numbers)):
            return f"{self.name}: limits or value in force are not numbers"
        if not self.low < self.high:
            return f"{self.name}: the limits {self.low:g} to {self.high:g} leave no choice"
        if not self.low <= self.current <= self.high:
            return f"{self.name}: the value in force, {self.current:g}, lies outside {self.low:g} to {self.high:g}"
        if self.ramp < 0 or self.change_cost < 0:
            return f"{self.name}: a ramp or a cost of change below 0 means nothing"
        return None


@dataclass(frozen=True)
class MachineLog:
    """What a machine did under which settings.

    Attributes:
        rows: on, product, late (0/1), setups, units, standard (minutes that the routing allows), scrap (units), energy (kWh),
            minutes (of run time), and a column a setting with the value in force.
        prices: Money per scrapped unit, per kWh and per minute of run time.
        standard_per_day: Standard minutes that the machine works on a usual day.
    """

    rows: pl.DataFrame
    prices: dict[str, float]
    standard_per_day: float


@dataclass(frozen=True)
class Surface:
    """Cost a standard minute as a convex function of the settings: sum of linear z + square z ** 2.

    Settings are scaled: z = (value - middle) / half the range of limits.

    Attributes:
        names: Settings, in order.
        middle: Of the limits.
        half: Half their range.
        linear: Money per standard minute (settings).
        square: The same of z ** 2, not below 0.
        by_response: (linear, square) of each response in its own unit.
        covariance: Of (linear, square) by ordinary least squares, clustered by regime of settings.
        seen: Lowest and highest scaled value in the log (settings, 2).
        mean: Mean of the scaled values by day.
        shape: Inverse covariance of them.
        reach: Largest squared distance that counts as seen.
        regimes: How many combinations of settings the log holds.
    """

    names: tuple[str, ...]
    middle: Array
    half: Array
    linear: Array
    square: Array
    by_response: dict[str, tuple[Array, Array]]
    covariance: Array
    seen: Array
    mean: Array
    shape: Array
    reach: float
    regimes: int

    def cost(self, z: Array) -> float:
        """Money per standard minute against the middle of the limits."""
        return float(self.linear @ z + self.square @ z**2)

    def change_error(self, before: Array, after: Array) -> float:
        """Standard error of the difference of cost between two settings."""
        step = np.r_[after - before, after**2 - before**2]
        return float(np.sqrt(max(step @ self.covariance @ step, 0.0)))


@dataclass(frozen=True)
class Proposal:
    """What is proposed for a machine.

    Attributes:
        values: Value by setting; those that stay are not in it.
        saving: Expected saving (money per day), changes not counted.
        low: Lower end of its 90 % interval.
        high: Upper end.
        seen: Lowest and highest value in the log by setting.
        kind: `improve` or `withdraw`; empty where nothing is proposed.
        reason: Why, in words.
        cost_now: Expected cost a day under the settings in force, against the middle of the limits (money).
        notes: Settings left out, and why.
    """

    values: dict[str, float]
    saving: float
    low: float
    high: float
    seen: dict[str, tuple[float, float]]
    kind: str
    reason: str
    cost_now: float = 0.0
    notes: tuple[str, ...] = ()


def believable(rows: pl.DataFrame, keys: Sequence[str] = ()) -> pl.DataFrame:
    """The rows of a log that can be true: a wild meter or a swapped unit must not set the price of a setting.

    Numbers are finite and not negative, no more units are scrapped than were made, and energy and run time for a standard minute
    are within `FAR_FROM_USUAL` times their median. Energy that is missing on most days is missing on all. A meter that drifts or
    stands still is not seen here: it makes the surface wrong, but never leads out of the limits.

    Args:
        rows: As `MachineLog.rows`; energy may be null.
        keys: Columns by which the median is taken, such as the machine.
    """
    numbers = ("units", "standard", "scrap", "minutes")
    # Beyond this, squares and sums of squares are no numbers any more.
    possible = pl.all_horizontal(pl.col(name).is_between(0.0, 1e12) for name in numbers)
    possible &= pl.col("energy").is_null() | pl.col("energy").is_between(0.0, 1e12)
    # Where most days have their energy, a day without it is left out; counted as 0 it would make its settings look cheap.
    known = pl.col("energy").is_not_null()
    mostly = (known.mean().over(keys) if keys else known.mean()) >= 0.5
    rows = rows.filter(known | ~mostly).with_columns(energy=pl.when(mostly).then("energy").cast(pl.Float64))
    kept = rows.filter(
        possible & (pl.col("scrap") <= pl.col("units")) & (pl.col("standard") > 0) & (pl.col("minutes") > 0)
    )
    usual = [pl.col("energy") / pl.col("standard"), pl.col("minutes") / pl.col("standard")]
    middle = [(ratio.median().over(keys) if keys else ratio.median()) for ratio in usual]
    near = [
        ratio.is_null() | (most <= 0) | (ratio <= FAR_FROM_USUAL * most)
        for ratio, most in zip(usual, middle, strict=True)
    ]
    near.append((middle[1] <= 0) | (usual[1] * FAR_FROM_USUAL >= middle[1]))
    return kept.filter(pl.all_horizontal(near).fill_null(True))


def nothing(reason: str, notes: tuple[str, ...] = ()) -> Proposal:
    """No proposal, with the reason."""
    return Proposal({}, 0.0, 0.0, 0.0, {}, "", reason, notes=notes)


def fit_surface(log: MachineLog, limits: list[SettingLimits]) -> Surface:
    r"""Fits scrap share, energy and time a standard minute by weighted least squares, and adds them up in money.

    For every response, with product effects removed, z the scaled settings and w standard minutes,

        min  sum_r w[r] (y[r] - a x[r] - b' z[r] - q' z[r] ** 2) ** 2
        s.t. q >= 0,  sign[j] (b[j] + 2 q[j] z) >= 0 at both ends of what was seen of setting j,

    a response surface (Box and Wilson 1951) that is convex, so that its optimum is one. The interval comes from ordinary
    least squares of the money with errors clustered by regime, since rows under the same settings share what else changed
    with them. Solved with CVXPY and Clarabel.

    Raises:
        NpqError: The log is too short, or settings have not changed often enough.
    """
    import cvxpy as cp

    names = tuple(limit.name for limit in limits)
    low, high = np.array([s.low for s in limits]), np.array([s.high for s in limits])
    middle, half = (low + high) / 2.0, (high - low) / 2.0
    reach = (1 + 2 * FAR_OUTSIDE) * half
    rows = believable(log.rows.drop_nulls(names)).filter(
        (pl.col("units") > 0)
        & pl.all_horizontal(
            pl.col(name).is_between(float(m - r), float(m + r)) for name, m, r in zip(names, middle, reach, strict=True)
        )
    )
    days = rows["on"].n_unique()
    if days < LEAST_DAYS:
        raise NpqError(f"the log holds {days} days with known settings; {LEAST_DAYS} are needed")
    z = (rows.select(names).to_numpy().astype(float) - middle) / half
    _, regime = np.unique(np.round(z, 6), axis=0, return_inverse=True)
    regimes = int(regime.max()) + 1
    if regimes < LEAST_REGIMES:
        raise NpqError(f"the log holds {regimes} combinations of settings; {LEAST_REGIMES} are needed to see an effect")
    seen = np.column_stack([z.min(axis=0), z.max(axis=0)])
    weight = rows["standard"].to_numpy().astype(float)
    units, standard = rows["units"].to_numpy().astype(float), weight
    y = {
        "scrap": rows["scrap"].to_numpy().astype(float) / units,
        "energy": rows["energy"].fill_null(0.0).to_numpy().astype(float) / standard,
        "minutes": rows["minutes"].to_numpy().astype(float) / standard,
    }
    units_per_standard = float(units.sum() / standard.sum())
    price = {"scrap": log.prices["scrap"] * units_per_standard, "energy": log.prices["energy"],
             "minutes": log.prices["minutes"]}  # fmt: skip
    setups = rows["setups"].to_numpy().astype(float)
    controls = np.column_stack([rows["late"].to_numpy().astype(float), setups / units, setups / standard])
    controls = controls[:, np.ptp(controls, axis=0) > 0]
    design = np.column_stack([z, z**2, controls])
    group = rows["product"].to_numpy()
    design = _demeaned(design, weight, group)
    root = np.sqrt(weight / weight.mean())
    k = len(names)
    by_response: dict[str, tuple[Array, Array]] = {}
    total = np.zeros(len(weight))
    linear, square = np.zeros(k), np.zeros(k)
    # The same squares in a small equivalent form: |Ax - b|^2 depends on R of A = QR alone.
    q_factor, r_factor = np.linalg.qr(design * root[:, None])
    for name in RESPONSES:
        target = _demeaned(y[name][:, None], weight, group)[:, 0]
        total += price[name] * y[name]
        scale = float(np.std(target)) or 1.0
        beta = cp.Variable(design.shape[1])
        b, q = beta[:k], beta[k : 2 * k]
        rules = [q >= 0]
        for j, limit in enumerate(limits):
            sign = limit.signs.get(name, 0)
            if sign:
                rules += [sign * (b[j] + 2 * q[j] * end) >= 0 for end in seen[j]]
        ridge = 1e-6 * cp.sum_squares(beta)
        fit = cp.sum_squares(r_factor @ beta - q_factor.T @ (target * root) / scale)
        program = cp.Problem(cp.Minimize(fit + ridge), rules)
        status = _solved(program)
        if status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or beta.value is None:
            raise NpqError(f"the response surface of {name} could not be fitted ({status})")
        found = np.asarray(beta.value, float) * scale
        by_response[name] = (found[:k], np.maximum(found[k : 2 * k], 0.0))
        linear += price[name] * by_response[name][0]
        square += price[name] * by_response[name][1]
    covariance = _clustered(design, _demeaned(total[:, None], weight, group)[:, 0], root, regime)[: 2 * k, : 2 * k]
    by_day = (
        rows.group_by("on", maintain_order=True)
        .agg(pl.col(names).mean())
        .sort("on")
        .select(names)
        .to_numpy()
        .astype(float)
    )
    by_day = (by_day - middle) / half
    mean = np.asarray(by_day.mean(axis=0), float)
    shape = np.asarray(np.linalg.inv(np.cov(by_day.T).reshape(k, k) + 1e-6 * np.eye(k)), float)
    far = np.einsum("ij,jk,ik->i", by_day - mean, shape, by_day - mean)
    return Surface(names, middle, half, linear, square, by_response, covariance, seen, mean, shape,
                   float(np.quantile(far, SEEN_SHARE)), regimes)  # fmt: skip


def _solved(program: Any) -> str:
    """Solves with Clarabel and returns the status; a solver that gives up says so instead of raising."""
    import cvxpy as cp

    try:
        program.solve(solver=cp.CLARABEL)
    except (cp.error.SolverError, ArithmeticError, ValueError) as trouble:
        return f"the solver gave up: {str(trouble).splitlines()[0]}"
    return str(program.status)


def _demeaned(values: Array, weight: Array, group: NDArray[np.generic]) -> Array:
    """Values less their weighted mean by group."""
    _, code = np.unique(group, return_inverse=True)
    total = np.bincount(code, weight)
    means = np.column_stack([np.bincount(code, weight * values[:, j]) / total for j in range(values.shape[1])])
    return np.asarray(values - means[code], float)


def _clustered(design: Array, target: Array, root: Array, cluster: NDArray[np.int64]) -> Array:
    """Covariance of weighted least squares with errors clustered (Liang and Zeger 1986), small samples corrected."""
    a, b = design * root[:, None], target * root
    bread = np.linalg.pinv(a.T @ a)
    error = b - a @ (bread @ (a.T @ b))
    score = a * error[:, None]
    groups = int(cluster.max()) + 1
    sums = np.column_stack([np.bincount(cluster, score[:, j], groups) for j in range(a.shape[1])])
    factor = groups / max(groups - 1, 1) * (len(b) - 1) / max(len(b) - a.shape[1], 1)
    return np.asarray(factor * bread @ (sums.T @ sums) @ bread, float)


def propose(log: MachineLog, limits: list[SettingLimits], changed_on: date | None, as_of: date) -> Proposal:
    """The settings of least expected cost, or none with the reason.

    Args:
        log: What the machine did under which settings before `as_of`.
        limits: Its settings.
        changed_on: Day of its last change.
        as_of: The day about to open.
    """
    broken = [words for limit in limits if (words := limit.problem()) is not None]
    if broken:
        return nothing("; ".join(broken))
    if changed_on is not None and (as_of - changed_on).days < HELD_DAYS:
        return nothing(f"changed on {changed_on}: left alone for {HELD_DAYS} days, so that the effect can be seen")
    kept, notes = _moved(log, limits)
    if not kept:
        return nothing("no setting was varied enough for its effect to be seen", tuple(notes))
    try:
        surface = fit_surface(log, kept)
    except NpqError as reason:
        return nothing(str(reason), tuple(notes))
    return _best(surface, log, kept, tuple(notes))


def _moved(log: MachineLog, limits: list[SettingLimits]) -> tuple[list[SettingLimits], list[str]]:
    kept, notes = [], []
    for limit in limits:
        if limit.name not in log.rows.columns:
            notes.append(f"{limit.name}: its past values are not known")
            continue
        seen = log.rows[limit.name].drop_nulls().to_numpy()
        seen = seen[(seen >= limit.low) & (seen <= limit.high)]
        if len(seen) == 0 or np.ptp(seen) < LEAST_SPAN * (limit.high - limit.low):
            notes.append(f"{limit.name}: hardly varied in the log, so that its effect is unknown")
        else:
            kept.append(limit)
    return kept, notes


def _best(surface: Surface, log: MachineLog, limits: list[SettingLimits], notes: tuple[str, ...]) -> Proposal:
    r"""Minimizes cost(z) + change cost over its payback time.

        min  linear' z + square' z ** 2 + sum_j k[j] |z[j] - now[j]|
        s.t. limits, |z - now| <= ramp, seen low <= z <= seen high,
             (z - mean)' S^-1 (z - mean) <= reach   (a trust region: no combination that the log has not seen)

    A convex program with one optimum (CVXPY, Clarabel). Where the settings in force lie outside what was seen, the region
    grows just to them: moving back is allowed, moving on is not.
    """
    import cvxpy as cp

    now = (np.array([s.current for s in limits]) - surface.middle) / surface.half
    ramp = np.array([s.ramp for s in limits]) / surface.half
    change = np.array([s.change_cost for s in limits]) * surface.half / (PAYBACK_DAYS * max(log.standard_per_day, 1e-9))
    lower = np.maximum(np.maximum(-1.0, np.minimum(surface.seen[:, 0], now)), now - ramp)
    upper = np.minimum(np.minimum(1.0, np.maximum(surface.seen[:, 1], now)), now + ramp)
    factor = np.linalg.cholesky(surface.shape).T
    reach = max(surface.reach, float(((factor @ (now - surface.mean)) ** 2).sum()))
    z = cp.Variable(len(limits))
    cost = surface.linear @ z + cp.sum(cp.multiply(surface.square, z**2)) + change @ cp.abs(z - now)
    region = [z >= lower, z <= upper, cp.norm(factor @ (z - surface.mean)) <= np.sqrt(reach) * (1 + 1e-9)]
    program = cp.Problem(cp.Minimize(cost * 1e3), region)
    status = _solved(program)
    if status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or z.value is None:
        return nothing(f"no optimum within the limits was proven ({status})", notes)
    values: dict[str, float] = {}
    after = now.copy()
    for j, limit in enumerate(limits):
        value = within(limit, float(surface.middle[j] + surface.half[j] * z.value[j]))
        if abs(value - limit.current) >= LEAST_CHANGE * (limit.high - limit.low):
            values[limit.name] = value
            after[j] = (value - surface.middle[j]) / surface.half[j]
    seen = {
        s.name: (float(surface.middle[j] + surface.half[j] * surface.seen[j, 0]),
                 float(surface.middle[j] + surface.half[j] * surface.seen[j, 1]))
        for j, s in enumerate(limits)
    }  # fmt: skip
    scale = log.standard_per_day
    saving = (surface.cost(now) - surface.cost(after)) * scale
    half = _simultaneous(len(limits), surface.regimes) * surface.change_error(now, after) * scale
    paid = sum(abs(values[s.name] - s.current) * s.change_cost for s in limits if s.name in values) / PAYBACK_DAYS
    if not values:
        return nothing("the settings in force are the best that limits and log allow", notes)
    if saving - half <= paid:
        return nothing(
            f"the log does not carry a change: {saving:.2f} a day, 90 % between {saving - half:.2f} and {saving + half:.2f}",
            notes,
        )
    words = "; ".join(_effects(surface, log, now, after))
    return Proposal(
        values, saving, saving - half, saving + half, seen, "improve", words, surface.cost(now) * scale, notes
    )


def _simultaneous(settings: int, regimes: int) -> float:
    """Standard errors on each side of a saving whose direction was chosen by the same log (Scheffé 1953).

    The optimum goes where the log says most is saved, by luck or not: an interval for one direction fixed before would be too
    short. Regimes of settings, less the coefficients of the surface, are what there is to learn from.
    """
    from scipy import stats

    freedom = max(regimes - 1 - 2 * settings, 1)
    return float(np.sqrt(settings * stats.f.ppf(2 * ONE_SIDED - 1, settings, freedom)))


def within(limit: SettingLimits, value: float) -> float:
    """A value inside limits and ramp, rounded towards the value in force; the last line behind every optimizer."""
    if not np.isfinite(value) or limit.problem() is not None:
        return limit.current
    low, high = max(limit.low, limit.current - limit.ramp), min(limit.high, limit.current + limit.ramp)
    digits = max(0, 2 - int(np.floor(np.log10(limit.high - limit.low))) + 1)
    step = 10.0**-digits
    clipped = min(max(value, low), high)
    towards = np.floor if clipped > limit.current else np.ceil
    rounded = (
        limit.current
        + float(towards((clipped - limit.current) / step + (1e-9 if clipped > limit.current else -1e-9))) * step
    )
    return float(min(max(round(rounded, digits + 4), low), high))


def _effects(surface: Surface, log: MachineLog, now: Array, after: Array) -> list[str]:
    """What the change does to each response, in words."""
    found = []
    units = {"scrap": "points of scrap", "energy": "kWh", "minutes": "minutes"}
    for name in RESPONSES:
        b, q = surface.by_response[name]
        step = float(b @ (after - now) + q @ (after**2 - now**2))
        amount = 100 * step if name == "scrap" else step * 60.0
        if abs(amount) > 5e-3:
            word = units[name] + ("" if name == "scrap" else " an hour of work")
            found.append(f"{amount:+.2f} {word}")
    return found or ["no single effect of note"]


def withdraw(
    log: MachineLog, limits: list[SettingLimits], changed_on: date, before: dict[str, float], as_of: date
) -> Proposal | None:
    """The way back from a change that made things worse; None where the evidence does not say so.

    Compares cost a standard minute, less what product, shift and setups explain, on days after with days before the change
    (Welch 1947, on daily means, since the rows of a day share their luck).

    Args:
        log: What the machine did.
        limits: Its settings.
        changed_on: Day of the change.
        before: Values before it, of the settings that it changed.
        as_of: The day about to open.
    """
    from scipy import stats

    if any(limit.problem() for limit in limits) or not before:
        return None
    rows = believable(log.rows).filter(
        (pl.col("units") > 0)
        & (pl.col("on") >= changed_on - timedelta(days=COMPARED_DAYS))
        & (pl.col("on") < changed_on + timedelta(days=COMPARED_DAYS))
        & (pl.col("on") < as_of)
    )  # fmt: skip
    if rows.is_empty():
        return None
    weight = rows["standard"].to_numpy().astype(float)
    money = (
        log.prices["scrap"] * rows["scrap"].to_numpy()
        + log.prices["energy"] * rows["energy"].fill_null(0.0).to_numpy()
        + log.prices["minutes"] * rows["minutes"].to_numpy()
    ).astype(float) / weight
    later = (rows["on"] >= changed_on).to_numpy()
    setups = rows["setups"].to_numpy().astype(float)
    group = rows["product"].to_numpy()
    x = _demeaned(
        np.column_stack([later.astype(float), rows["late"].to_numpy().astype(float), setups / weight]), weight, group
    )
    root = np.sqrt(weight)
    beta = np.linalg.lstsq(x * root[:, None], _demeaned(money[:, None], weight, group)[:, 0] * root, rcond=None)[0]
    rest = money - np.column_stack([rows["late"].to_numpy().astype(float), setups / weight]) @ beta[1:]
    rest = _demeaned(rest[:, None], weight, group)[:, 0]
    daily = pl.DataFrame({"on": rows["on"], "later": later, "money": rest * weight, "weight": weight})
    mean = (pl.col("money").sum() / pl.col("weight").sum()).alias("cost")
    daily = daily.group_by("on", "later", maintain_order=True).agg(mean).sort("on")
    after, earlier = (daily.filter(pl.col("later") == flag)["cost"].to_numpy() for flag in (True, False))
    if min(len(after), len(earlier)) < LEAST_COMPARED:
        return None
    spread = float(np.sqrt(after.var(ddof=1) / len(after) + earlier.var(ddof=1) / len(earlier)))
    freedom = min(len(after), len(earlier)) - 1
    worse = float(after.mean() - earlier.mean())
    half = float(stats.t.ppf(ONE_SIDED, freedom)) * spread
    if worse - half <= 0:
        return None
    scale = log.standard_per_day
    values = {s.name: within(s, before[s.name]) for s in limits if s.name in before}
    values = {s.name: values[s.name] for s in limits if s.name in values and values[s.name] != s.current}
    if not values:
        return None
    return Proposal(
        values, worse * scale, (worse - half) * scale, (worse + half) * scale, {}, "withdraw",
        f"since the change on {changed_on} a day costs {worse * scale:.2f} more (90 % between {(worse - half) * scale:.2f} and "
        f"{(worse + half) * scale:.2f}; {len(after)} days against {len(earlier)})",
    )  # fmt: skip
