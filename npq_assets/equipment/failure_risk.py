"""Probability of failure of every component on each of the next days, learned with what the records allow.

Many failures: boosted trees; some: a penalized logistic hazard; few, or no sensors: age alone. What to do about it does not
belong here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from npq_assets.equipment.learners import Array, boosted
from npq_assets.equipment.lifetimes import LEAST_FAILURES, Weibull, fit_weibull
from npq_assets.equipment.maintenance import HORIZON, WINDOWS, MachineHistory, failed_ahead, features
from npq_assets.errors import NpqError

# Failures of a component from which trees, or a penalized regression, learn its signs.
FOR_TREES = 25
FOR_REGRESSION = 3
# A machine without readings for so many days is judged by age alone.
SILENT_DAYS = 2
DAILY = [f"p{h}" for h in range(1, HORIZON + 1)]


@dataclass(frozen=True)
class FailureRisk:
    """What may fail.

    Attributes:
        rows: machine, component, age (days; null if unknown), p1 … p7, p, method, signs (what is unusual, in words).
        lives: Weibull life by component, where it failed often enough.
        notes: What could not be computed, and why.
    """

    rows: pl.DataFrame
    lives: dict[str, Weibull]
    notes: tuple[str, ...] = ()


def failure_risk(history: MachineHistory, lives: pl.DataFrame, day: datetime, *, trees: int = 80) -> FailureRisk:
    """Probabilities for the days from `day` on, seen before it opens.

    Args:
        history: What was recorded before `day`; telemetry has a row a machine and day, readings that are missing are null.
        lives: machine, component, days, failed, running, age_known: parts used so far; one running a machine and component.
        day: The day about to open.
        trees: Boosting rounds.

    Raises:
        NpqError: No component failed three times: there is nothing to learn from.
    """
    notes: list[str] = []
    weibulls: dict[str, Weibull] = {}
    for (component,), part in lives.group_by("component", maintain_order=True):
        try:
            weibulls[str(component)] = fit_weibull(
                part["days"].to_numpy().astype(float), part["failed"].to_numpy().astype(float)
            )
        except NpqError:
            notes.append(f"{component} failed less than {LEAST_FAILURES} times: no probability of failure")
    if not weibulls:
        raise NpqError(
            f"manufacturing.component_replacements: no component failed {LEAST_FAILURES} times before {day:%Y-%m-%d}; "
            "there is nothing to learn from"
        )
    look = day - timedelta(days=1)
    table = features(history)
    names = [c for c in table.columns if c not in ("machine", "date")]
    x = table.select(pl.col(names).cast(pl.Float64)).to_numpy()
    date, machines = table["date"], table["machine"].to_list()
    asked = (date == look).to_numpy()
    row_of = {machine: k for k, (machine, now) in enumerate(zip(machines, asked, strict=True)) if now}
    silent = _silent(history, look)
    frames = []
    for component, life in sorted(weibulls.items()):
        running = lives.filter((pl.col("component") == component) & pl.col("running")).sort("machine")
        ages = running["days"].to_numpy().astype(float)
        by_age = np.array([life.next_days(a, HORIZON) for a in ages]).reshape(len(ages), HORIZON)
        daily, method = by_age, np.array(["age"] * len(ages), dtype=object)
        known = np.array([m in row_of and m not in silent for m in running["machine"]], bool)
        learned = _learned(table, x, history, component, day, x[asked], trees) if asked.any() else None
        signs = [""] * len(ages)
        if learned is not None and known.any():
            place = {int(k): j for j, k in enumerate(np.flatnonzero(asked))}
            for i, machine in enumerate(running["machine"]):
                if known[i]:
                    daily[i] = learned[0][place[row_of[machine]]]
                    method[i] = learned[1]
                    signs[i] = _signs(names, x, row_of[machine])
        for i, machine in enumerate(running["machine"]):
            if machine in silent:
                method[i] = f"age (no reading {silent[machine]})"
        frames.append(
            running.select(
                "machine", "component", pl.when("age_known").then(pl.col("days").cast(pl.Float64)).alias("age")
            ).with_columns(
                *(pl.Series(name, np.clip(daily[:, h], 0.0, 1.0)) for h, name in enumerate(DAILY)),
                pl.Series("p", np.clip(daily.sum(axis=1), 0.0, 1.0)),
                pl.Series("method", [str(m) for m in method], dtype=pl.String),
                pl.Series("signs", signs, dtype=pl.String),
            )
        )
    return FailureRisk(pl.concat(frames).sort("machine", "component"), weibulls, tuple(notes))


def _silent(history: MachineHistory, look: datetime) -> dict[str, str]:
    """Machines whose sensors have said nothing usable for some days, and since when; empty where there are no sensors."""
    sensors = [c for c in history.telemetry.columns if c not in ("machine", "date")]
    if not sensors:
        return {}
    heard = history.telemetry.filter(pl.any_horizontal(pl.col(sensors).is_not_null()))
    last = dict(heard.group_by("machine").agg(pl.col("date").max()).iter_rows())
    found = {}
    for machine in history.telemetry["machine"].unique().sort():
        when = last.get(machine)
        if when is None or (look - when).days >= SILENT_DAYS:
            found[machine] = "ever" if when is None else f"since {when:%Y-%m-%d}"
    return found


def _learned(
    table: pl.DataFrame, x: Array, history: MachineHistory, component: str, day: datetime, asked: Array, trees: int
) -> tuple[Array, str] | None:
    """Probability of failure on each of the next days of the rows asked about, and the method; None where failures are few.

    A discrete-time hazard (Singer and Willett 1993) by window of days ahead, learned from days whose whole window is over.
    Days on which the part was taken out before their window ended say nothing: it might have failed. Were they counted as
    survivals, the model would unlearn the very signs that it is acted upon.
    """
    past = history.failures.filter((pl.col("component") == component) & (pl.col("date") < day))
    taken_out = history.replacements.join(history.failures, on=["machine", "component", "date"], how="anti")
    if past.height < FOR_REGRESSION:
        return None
    by_trees = past.height >= FOR_TREES
    daily = np.zeros((len(asked), HORIZON))
    left = np.ones(len(asked))
    for first, last in WINDOWS:
        learned = (table["date"].dt.offset_by(f"{last}d") < day).to_numpy()
        label = failed_ahead(table, past, component, first, last)
        learned &= (label > 0.5) | (failed_ahead(table, taken_out, component, 1, last) < 0.5)
        y = label[learned]
        if y.sum() < FOR_REGRESSION:
            return None
        if by_trees:
            learner = boosted("binary", trees=trees, leaves=12, rate=0.05, least=15, columns=0.6)
            p = learner(x[learned], y, asked)
        else:
            p = _penalized(x[learned], y, asked)
        p = np.clip(p, 0.0, 1.0)
        # The window's probability is one of those that reach it; its days share it evenly.
        daily[:, first - 1 : last] = (np.minimum(p, left) / (last - first + 1))[:, None]
        left = left - np.minimum(p, left)
    return daily, "boosted trees" if by_trees else "penalized regression"


def _penalized(x: Array, y: Array, new: Array) -> Array:
    """Logistic regression with an L2 penalty on robustly scaled features: what few failures can carry (Hoerl and Kennard 1970).

    Values far outside what was seen count as the farthest seen: one absurd reading must not carry a decision alone.
    """
    from sklearn.linear_model import LogisticRegression

    known = np.where(np.isfinite(x), x, np.nan)
    sound = known[y < 0.5]
    spoken = np.isfinite(sound).any(axis=0)
    usual, spread = np.zeros(x.shape[1]), np.ones(x.shape[1])
    # Without the farthest two in a thousand on each side: a sensor gone wild must not set the scale.
    low, usual[spoken], high = np.nanquantile(sound[:, spoken], (0.002, 0.5, 0.998), axis=0)
    width = np.nanstd(np.clip(sound[:, spoken], low, high), axis=0)
    spread[spoken] = np.where(width > 1e-9, width, 1.0)

    def scaled(rows: Array) -> Array:
        z = (np.where(np.isfinite(rows), rows, usual) - usual) / spread
        return np.asarray(np.clip(z, -8.0, 8.0), float)

    model = LogisticRegression(C=0.05, max_iter=500, tol=1e-6).fit(scaled(x), y > 0.5)
    return np.asarray(model.predict_proba(scaled(new))[:, 1], float)


def _signs(names: list[str], x: Array, row: int, count: int = 2) -> str:
    """The most unusual readings and errors of a machine, in words."""
    kept = [k for k, name in enumerate(names) if name.endswith(("_three", "_7")) and not name.startswith("visit")]
    found = []
    for k in kept:
        column = x[:, k]
        seen = column[np.isfinite(column)]
        if len(seen) < 20 or not np.isfinite(x[row, k]):
            continue
        low, middle, high = np.quantile(seen, (0.16, 0.5, 0.84))
        # Without the farthest: one wild reading must not make all others look usual.
        spread = max((high - low) / 2, float(np.std(np.clip(seen, *np.quantile(seen, (0.002, 0.998))))) * 0.2, 1e-9)
        found.append(((x[row, k] - middle) / spread, k))
    words = []
    for z, k in sorted(found, key=lambda item: (-abs(item[0]), item[1]))[:count]:
        if abs(z) < 3:
            continue
        name = names[k]
        if name.endswith("_7"):
            words.append(f"{name.removesuffix('_7')} {x[row, k]:.0f} times in a week")
        else:
            words.append(
                f"{name.removesuffix('_three')} {abs(x[row, k]):.3g} {'above' if x[row, k] > 0 else 'below'} its last weeks"
            )
    return ", ".join(words)
