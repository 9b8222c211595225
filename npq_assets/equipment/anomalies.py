"""Which machines behave unlike themselves, and which sensors cannot be believed: alerts that open, last, and close.

Four things are judged, period by period (an hour, or whatever is the sensors' own step):

* `level`: a machine's sensors are far from their usual values, one of them or all together. A sensor's usual value is the median
  of the same time of day over the weeks before, its unit the median absolute deviation (Hampel 1974: half of the past may be
  wrong without harm); what lasts is seen by an exponentially weighted mean (Roberts 1959), what the sensors say together by the
  Mahalanobis distance of their deviations. Both are measured in deviations of their own past, so that a process that always
  wanders is allowed to. The last two days are not yet part of the past: a slow drift does not hide itself at once, and what has
  lasted half the window is the new usual.
* `stuck`: a sensor gives one and the same value for longer than twice its longest pause of the weeks before.
* `silent`: the same of not being read at all.
* `clock`: a machine's clock is behind that of the plant.

An alert opens when its score reaches `high`, and closes when it has been below `low` for some time: between the two it stays
what it was. It keeps its name and the moment of its opening over the days.

What alerts cost, who owns them and where they are shown do not belong here (see `manufacturing.monitoring`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Array = NDArray[np.float64]
KINDS = ("level", "stuck", "silent", "clock")
# A reading so many deviations from the usual is none, whatever the machine does.
IMPOSSIBLE = 1e6
_ROBUST = 1.4826  # MAD of normal errors to their standard deviation


@dataclass(frozen=True)
class AnomalyParams:
    """When something is worth a person's attention. Scores are in deviations; 5 by chance is one in a million.

    Attributes:
        high: Score at which an alert opens.
        low: Score below which it may close.
        close_hours: Hours that it must stay below `low`.
        window_days: Days of the past that say what is usual.
        daily_window_days: The same where there is one value a day.
        guard_days: Latest days that are not yet part of it.
        least: Values a sensor must have in the window to be judged.
        spike: A single value so many deviations off counts as much as `high`.
        half_life_hours: Of the exponentially weighted mean; at least one and a half steps.
        stuck_readings: Equal readings before a sensor counts as stuck.
        clock_minutes: Delay of a clock that reaches `high`.
        replay_days: Days that are looked through where nothing is known of the day before.
    """

    high: float = 6.0
    low: float = 3.0
    close_hours: float = 24.0
    window_days: int = 28
    daily_window_days: int = 56
    guard_days: int = 2
    least: int = 14
    spike: float = 10.0
    half_life_hours: float = 8.0
    stuck_readings: int = 10
    clock_minutes: float = 10.0
    replay_days: int = 14


ALERTS: dict[str, Any] = {
    "alert_id": pl.String,
    "kind": pl.String,
    "machine_id": pl.String,
    "sensors": pl.String,
    "opened_at": pl.Datetime("us", "UTC"),
    "last_at": pl.Datetime("us", "UTC"),
    "closed_at": pl.Datetime("us", "UTC"),
    "score": pl.Float64,
    "reason": pl.String,
}
"""Columns of alerts: `last_at` is the last period at or above `low`, `closed_at` null while it is open; `score` is the highest
since the alert opened, up to the last 24 hours for an open one's rank; `sensors` those behind it, the worst first."""


@dataclass(frozen=True)
class Scores:
    """Scores of a machine and kind, a period a row.

    Attributes:
        machine_id: The machine.
        kind: One of `KINDS`.
        at: Begin of each period (UTC, microseconds).
        score: Score of each; NaN where nothing can be said.
        by_sensor: Sensor names and their scores (periods x sensors).
        words: What is said of a sensor's score.
    """

    machine_id: str
    kind: str
    at: NDArray[np.datetime64]
    score: Array
    sensors: tuple[str, ...]
    by_sensor: Array
    detail: Array = field(default_factory=lambda: np.empty((0, 0)))


def alert_id(kind: str, machine_id: str, opened_at: datetime) -> str:
    """The alert of this kind, machine and opening has the same id on any day."""
    text = "\x1f".join(["alert", kind, machine_id, opened_at.astimezone(UTC).isoformat()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def watch(
    hours: pl.DataFrame, since: datetime, until: datetime, before: pl.DataFrame | None, params: AnomalyParams
) -> pl.DataFrame:
    """Alerts at `until`, those that closed since `since` included.

    Args:
        hours: machine_id, sensor, hour_start (UTC), value, lowest, highest, readings, delay_minutes; nothing from `until` on is
            looked at.
        since: Begin of what is new: periods before were judged when `before` was made.
        until: End of what is known, exclusive.
        before: Alerts open at `since`, as an earlier call gave them.
        params: When something is worth attention.

    Returns:
        The columns of `ALERTS`, sorted by opening and id.
    """
    known = hours.filter(pl.col("hour_start") < until)
    open_before = {(r["kind"], r["machine_id"]): r for r in _rows(before) if r["closed_at"] is None}
    found: list[dict[str, Any]] = []
    for (machine,), part in known.sort("machine_id", "hour_start", "sensor").group_by(
        "machine_id", maintain_order=True
    ):
        for scores in machine_scores(str(machine), part, since, until, params):
            found += follow(scores, open_before.pop((scores.kind, scores.machine_id), None), params)
    # A machine of which nothing is known any more keeps its alerts.
    found += [dict(row) for row in open_before.values()]
    return pl.DataFrame(found, schema=ALERTS, orient="row").sort("opened_at", "alert_id")


def _rows(frame: pl.DataFrame | None) -> Iterable[dict[str, Any]]:
    return [] if frame is None else frame.iter_rows(named=True)


def follow(scores: Scores, already: dict[str, Any] | None, params: AnomalyParams) -> list[dict[str, Any]]:
    """Opens and closes alerts along the scores of a machine and kind, from the state before."""
    done: list[dict[str, Any]] = []
    now = dict(already) if already else None
    for k, score in enumerate(scores.score):
        at = _moment(scores.at[k])
        if now is None:
            if score >= params.high:
                now = {
                    "alert_id": alert_id(scores.kind, scores.machine_id, at),
                    "kind": scores.kind,
                    "machine_id": scores.machine_id,
                    "opened_at": at,
                    "last_at": at,
                    "closed_at": None,
                    "score": 0.0,
                    "sensors": "",
                    "reason": "",
                }
            else:
                continue
        if score >= params.low:
            now["last_at"] = at
            if score >= now["score"] or not now["sensors"]:
                now["score"] = float(score)
                now["sensors"], now["reason"] = _named(scores, k, params)
        elif at - now["last_at"] >= timedelta(hours=params.close_hours) and not np.isnan(score):
            done.append(now | {"closed_at": at})
            now = None
    return [*done, now] if now else done


def _moment(at: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(at.astype("datetime64[us]").astype(np.int64)) / 1e6, UTC)


def _named(scores: Scores, k: int, params: AnomalyParams) -> tuple[str, str]:
    """The sensors behind a score, the worst first, and what is said of them."""
    row = scores.by_sensor[k]
    order = sorted(range(len(row)), key=lambda j: (-row[j] if not np.isnan(row[j]) else np.inf, scores.sensors[j]))
    behind = [j for j in order if row[j] >= params.low] or order[:2]
    names = ", ".join(scores.sensors[j] for j in behind[:3])
    worst = behind[0]
    if scores.kind == "level":
        far = scores.detail[k][worst]
        if row[worst] < params.high <= scores.score[k]:
            words = f"{names} move together as they usually do not"
        else:
            words = f"{scores.sensors[worst]} is {abs(far):.1f} deviations {'above' if far > 0 else 'below'} its usual value"
    elif scores.kind == "stuck":
        words = (
            f"{names} {'gives' if len(behind) == 1 else 'give'} the same value for {scores.detail[k][worst]:.0f} hours"
        )
    elif scores.kind == "silent":
        every = len(behind) == len(scores.sensors)
        words = f"{'no sensor' if every else names} was {'' if every else 'not '}read for {scores.detail[k][worst]:.0f} hours"
    else:
        words = f"the clock is {scores.detail[k][worst]:.0f} minutes behind at least"
    return names, words


# --- Scores of a machine -------------------------------------------------------------------------------------------------


def machine_scores(
    machine: str, part: pl.DataFrame, since: datetime, until: datetime, params: AnomalyParams
) -> Iterator[Scores]:
    """Scores of all kinds of a machine over the periods from `since` to `until`.

    Args:
        machine: The machine.
        part: Its rows, sorted by hour and sensor.
        since: Begin of the first day judged.
        until: End, exclusive.
        params: When something is worth attention.
    """
    step = step_hours(part)
    sensors = tuple(part["sensor"].unique().sort().to_list())
    earliest = part["hour_start"].min()
    assert isinstance(earliest, datetime)
    first = _day(min(earliest, since))
    grid = np.arange(first, np.datetime64(until.astimezone(UTC).replace(tzinfo=None), "h"), np.timedelta64(step, "h"))
    if not len(grid):
        return
    index = (part["hour_start"].dt.replace_time_zone(None).to_numpy().astype("datetime64[h]") - first).astype(
        np.int64
    ) // step
    column = part["sensor"].replace_strict(dict(zip(sensors, range(len(sensors)), strict=True)), return_dtype=pl.Int64)
    where = (index, column.to_numpy())

    def spread(name: str, missing: float = np.nan) -> Array:
        values = np.full((len(grid), len(sensors)), missing)
        values[where] = part[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        return values

    value, low, high = spread("value"), spread("lowest"), spread("highest")
    begin = int(np.searchsorted(grid, np.datetime64(since.astimezone(UTC).replace(tzinfo=None), "h")))
    at = grid[begin:]
    score, by_sensor, detail = level_scores(value, grid, step, begin, params)
    yield Scores(machine, "level", at, score, sensors, by_sensor, detail)
    readings = spread("readings", 0.0)
    runs = _runs(_unchanged(value, low, high))
    needed = np.maximum(2 * _longest(runs, grid, begin, params), _least_run(readings, grid, begin, params))
    yield _run_scores(machine, "stuck", at, sensors, runs[begin:], needed, step, params)
    gone = _runs(np.isnan(value) & (np.cumsum(~np.isnan(value), axis=0) > 0))
    needed = np.maximum(2 * _longest(gone, grid, begin, params), 3)
    yield _run_scores(machine, "silent", at, sensors, gone[begin:], needed, step, params)
    delay = spread("delay_minutes")[begin:]
    if np.isfinite(delay).any():
        by_sensor = np.nan_to_num(delay, nan=0.0) / params.clock_minutes * params.high
        # All sensors of a machine share its clock: the shortest delay is what the clock alone explains.
        score = np.full(len(at), np.nan)
        some = np.isfinite(delay).any(axis=1)
        score[some] = np.nanmin(delay[some], axis=1) / params.clock_minutes * params.high
        yield Scores(machine, "clock", at, score, sensors, by_sensor, delay)


def step_hours(part: pl.DataFrame) -> int:
    """The usual distance between the periods of a machine's sensors: 1, 2, 3, 4, 6, 8, 12 or 24 hours."""
    gaps = (
        part.select("sensor", "hour_start")
        .unique()
        .sort("sensor", "hour_start")
        .select(pl.col("hour_start").diff().over("sensor").dt.total_hours().alias("gap"))
        .filter(pl.col("gap") > 0)["gap"]
    )
    usual = gaps.median()
    hours = float(usual) if isinstance(usual, int | float) else 24.0
    return max(step for step in (1, 2, 3, 4, 6, 8, 12, 24) if step <= max(1.0, hours))


def _day(moment: datetime) -> np.datetime64:
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return np.datetime64(day, "h")


def level_scores(
    value: Array, grid: NDArray[np.datetime64], step: int, begin: int, params: AnomalyParams
) -> tuple[Array, Array, Array]:
    """How far each period from `begin` on is from what the weeks before its day show.

    Args:
        value: periods x sensors, NaN where nothing was read.
        grid: Begin of each period.
        step: Hours of a period.
        begin: First period to judge.
        params: When something is worth attention.

    Returns:
        Score of the machine, of each sensor, and each sensor's weighted mean deviation.
    """
    n, sensors = value.shape
    per_day = max(1, 24 // step)
    days = (grid - grid[0]).astype("timedelta64[h]").astype(np.int64) // 24
    slot = (grid - grid[0]).astype("timedelta64[h]").astype(np.int64) % 24 // step
    window = params.window_days if per_day > 1 else params.daily_window_days
    memory = 0.5 ** (1 / max(1.5, params.half_life_hours / step))
    score = np.full(n - begin, np.nan)
    by_sensor = np.full((n - begin, sensors), np.nan)
    detail = np.full((n - begin, sensors), np.nan)
    for day in np.unique(days[begin:]):
        past = (days >= day - window) & (days < day - params.guard_days)
        today = np.flatnonzero((days == day) & (np.arange(n) >= begin))
        known = np.flatnonzero(past)
        judged = (~np.isnan(value[known])).sum(axis=0) >= params.least if len(known) else np.zeros(sensors, bool)
        if not judged.any():
            continue
        span = np.arange(known[0], today[-1] + 1)
        z = _deviations(value[span][:, judged], slot[span], past[span], per_day)
        lasting = _weighted(np.clip(z, -params.high, params.high), memory)
        own = _standard(lasting, past[span])
        together = _weighted(_distance(np.clip(z, -params.high, params.high), past[span])[:, None], memory)
        joint = _standard(together, past[span])[:, 0]
        here = np.searchsorted(span, today)
        single = np.abs(z[here]) * params.high / params.spike
        sensor = np.fmax(np.abs(own[here]), single)
        by_sensor[np.ix_(today - begin, np.flatnonzero(judged))] = sensor
        detail[np.ix_(today - begin, np.flatnonzero(judged))] = z[here]
        best = np.where(np.isnan(sensor), -np.inf, sensor).max(axis=1)
        best = np.fmax(best, joint[here])
        score[today - begin] = np.where(np.isfinite(best), best, np.nan)
    return score, by_sensor, detail


def _deviations(value: Array, slot: NDArray[np.int64], past: NDArray[np.bool_], per_day: int) -> Array:
    """Values in deviations from the past's median, of the same time of day where the past has enough days of it."""
    usual = np.nanmedian(value[past], axis=0)
    residual = value - usual
    if per_day > 1 and past.sum() >= 7 * per_day:
        for part in range(per_day):
            same = slot == part
            middle = _median(value[past & same])
            residual[same] = value[same] - np.where(np.isnan(middle), usual, middle)
    known = residual[past]
    mad = _ROBUST * _median(np.abs(known))
    # Readings that cannot be would else be taken for what the sensor has shown, and hide all that can.
    known = np.where(np.abs(known) > np.where(mad > 0, IMPOSSIBLE * mad, np.finfo(float).max), np.nan, known)
    low, high = np.nanquantile(known, 0.01, axis=0), np.nanquantile(known, 0.99, axis=0)
    # A sensor that mostly rests has no median deviation; what it has shown at all is then the measure.
    unit = np.where(mad > 1e-3 * (high - low), mad, (high - low) / 6)
    unit = np.maximum(unit, 1e-9 + 1e-6 * np.abs(usual))
    return np.clip(residual / unit, -50, 50)


def _median(values: Array) -> Array:
    """Median by column, NaN where there are no values."""
    found = np.full(values.shape[1], np.nan)
    some = (~np.isnan(values)).any(axis=0)
    if some.any():
        found[some] = np.nanmedian(values[:, some], axis=0)
    return found


def _weighted(z: Array, memory: float) -> Array:
    """Exponentially weighted mean; a missing value leaves it as it was."""
    from scipy.signal import lfilter

    out = np.full_like(z, np.nan)
    for j in range(z.shape[1]):
        there = ~np.isnan(z[:, j])
        out[there, j] = lfilter([1 - memory], [1, -memory], z[there, j])
    return out


def _standard(values: Array, past: NDArray[np.bool_]) -> Array:
    """In deviations of their own past: never fewer than those of independent values would be."""
    middle = _median(values[past])
    unit = _ROBUST * _median(np.abs(values[past] - middle))
    scaled: Array = (values - middle) / np.where(np.isnan(unit), 1.0, np.maximum(unit, 0.1))
    return scaled


def _distance(z: Array, past: NDArray[np.bool_]) -> Array:
    """Mahalanobis distance of the sensors' deviations, as a normal deviate (Wilson and Hilferty 1931); NaN for one sensor."""
    n, sensors = z.shape
    whole = ~np.isnan(z).any(axis=1)
    known = z[past & whole]
    out = np.full(n, np.nan)
    if sensors < 2 or len(known) < 3 * sensors:
        return out
    calm = np.clip(known, -3, 3)
    # Shrunk towards independence: few days must not invent a relation.
    weight = len(calm) / (len(calm) + 10 * sensors)
    covariance = weight * (calm.T @ calm) / len(calm) + (1 - weight) * np.diag((calm**2).mean(axis=0))
    covariance += 0.02 * np.eye(sensors)
    d2 = np.einsum("ij,jk,ik->i", z[whole], np.linalg.inv(covariance), z[whole])
    share = 2 / (9 * sensors)
    out[whole] = ((d2 / sensors) ** (1 / 3) - (1 - share)) / np.sqrt(share)
    return out


# --- Runs ----------------------------------------------------------------------------------------------------------------


def _unchanged(value: Array, low: Array, high: Array) -> NDArray[np.bool_]:
    """Whether a period's readings are all the same, and the same as in the period before it that was read."""
    flat = (low == high) & ~np.isnan(value)
    before = np.full_like(value, np.nan)
    state = np.full(value.shape[1], np.nan)
    for k in range(len(value)):
        before[k] = state
        state = np.where(np.isnan(value[k]), state, value[k])
    return flat & (np.isnan(before) | (value == before))


def _runs(holds: NDArray[np.bool_]) -> Array:
    """For how many periods something has held, by period and sensor."""
    out = np.zeros(holds.shape)
    state = np.zeros(holds.shape[1])
    for k, row in enumerate(holds):
        state = np.where(row, state + 1, 0)
        out[k] = state
    return out


def _by_day(
    values: Array,
    grid: NDArray[np.datetime64],
    begin: int,
    params: AnomalyParams,
    summary: Callable[[Array], Array],
    nothing: float,
) -> Array:
    """A summary of the window before each judged period's day, by sensor; `nothing` where the window is empty."""
    days = (grid - grid[0]).astype("timedelta64[h]").astype(np.int64) // 24
    out = np.full((len(grid) - begin, values.shape[1]), nothing)
    for day in np.unique(days[begin:]):
        past = values[(days >= day - params.window_days) & (days < day - params.guard_days)]
        if len(past):
            out[days[begin:] == day] = summary(past)
    return out


def _longest(runs: Array, grid: NDArray[np.datetime64], begin: int, params: AnomalyParams) -> Array:
    """The longest run of the weeks before each period's day, in periods."""
    return _by_day(runs, grid, begin, params, lambda past: past.max(axis=0), 0.0)


def _least_run(readings: Array, grid: NDArray[np.datetime64], begin: int, params: AnomalyParams) -> Array:
    """Periods that hold enough readings to call a sensor stuck, four at least."""
    usual = _by_day(np.where(readings > 0, readings, np.nan), grid, begin, params, _median, np.nan)
    return np.maximum(4, np.ceil(params.stuck_readings / np.nan_to_num(usual, nan=1.0)))


def _run_scores(
    machine: str,
    kind: str,
    at: NDArray[np.datetime64],
    sensors: Sequence[str],
    runs: Array,
    needed: Array,
    step: int,
    params: AnomalyParams,
) -> Scores:
    by_sensor = params.high * runs / needed
    score = by_sensor.max(axis=1) if by_sensor.size else np.full(len(at), np.nan)
    # A run that ended is over: what is left of it does not keep an alert open.
    return Scores(machine, kind, at, score, tuple(sensors), by_sensor, runs * step)
