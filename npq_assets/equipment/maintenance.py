"""Probability of failure per machine, component and day, and the replacements that cost least.

Point in time: what is asked at the end of a day sees telemetry, errors, replacements and failures up to and including that day.
How events are read from files and who carries out the plan do not belong here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from npq_assets.equipment.learners import Array, boosted
from npq_assets.errors import NpqError
from npq_assets.optimization import highs

HORIZON = 7
# Days ahead that share a model: the near ones matter singly, the far ones are alike.
WINDOWS = ((1, 1), (2, 2), (3, 3), (4, HORIZON))


@dataclass(frozen=True)
class MachineHistory:
    """What has been recorded; every `date` is midnight of the day on which it became known.

    Attributes:
        telemetry: machine, date, then one column a sensor (daily means).
        errors: machine, date, error.
        replacements: machine, component, date (planned ones and those after a failure).
        failures: machine, component, date.
        machines: machine, then columns that do not change (numbers or words).
    """

    telemetry: pl.DataFrame
    errors: pl.DataFrame
    replacements: pl.DataFrame
    failures: pl.DataFrame
    machines: pl.DataFrame


@dataclass(frozen=True)
class MaintenanceParams:
    """Costs and limits of the plan.

    Attributes:
        planned: Cost of a planned replacement.
        failure: Cost of a failure.
        protects: Days for which a replacement is trusted to prevent a failure.
        lead: Days between the look and the first day that it can protect (1: replaced this evening).
        caught: Share of the later failures that a later look is expected to see in time; what waiting is worth.
        crew: Replacements possible a day; None for no limit.
    """

    planned: float = 1.0
    failure: float = 5.0
    protects: int = 7
    lead: int = 1
    caught: float = 0.75
    crew: int | None = None


@dataclass(frozen=True)
class MaintenancePlan:
    """Replacements of the coming days.

    Attributes:
        actions: machine, component, day (0: the evening of the look), and `saves` (expected cost saved by it).
        status: Status of the solver.
        objective: Expected cost of the plan (replacements and failures inside the horizon).
        bound: Proven lower bound of the expected cost.
        run_to_failure: Expected cost without any replacement.
        crew_price: What one more replacement would save, by day.
    """

    actions: pl.DataFrame
    status: str
    objective: float
    bound: float
    run_to_failure: float
    crew_price: dict[int, float] = field(default_factory=dict)


def features(history: MachineHistory) -> pl.DataFrame:
    """One row a machine and day of telemetry: machine, date, and what is known at the end of the day.

    Sensors: the day, its difference from the mean of the 14 days before, and yesterday's; errors: counts of 1, 2, 7 days by kind;
    components: days since the last replacement; visits: days since the last and until the next one by the machine's own rhythm.
    """
    sensors = [c for c in history.telemetry.columns if c not in ("machine", "date")]
    rows = history.telemetry.sort("machine", "date")
    made: list[pl.Expr] = []
    for name in sensors:
        value = pl.col(name).cast(pl.Float64)
        usual = value.shift(1).rolling_mean(14, min_samples=3).over("machine")
        made += [
            (value - usual).alias(f"{name}_jump"),
            (value.shift(1).over("machine") - usual).alias(f"{name}_before"),
            (value.rolling_mean(3, min_samples=1).over("machine") - usual).alias(f"{name}_three"),
        ]
    table = rows.with_columns(made)
    for kind in history.errors["error"].unique().sort().to_list():
        count = history.errors.filter(pl.col("error") == kind).group_by("machine", "date").len(f"{kind}_1")
        table = table.join(count, on=["machine", "date"], how="left").with_columns(pl.col(f"{kind}_1").fill_null(0))
        table = table.sort("machine", "date").with_columns(
            pl.col(f"{kind}_1").rolling_sum(days, min_samples=1).over("machine").alias(f"{kind}_{days}")
            for days in (2, 7)
        )
    for component in _components(history):
        done = history.replacements.filter(pl.col("component") == component).select("machine", "date")
        table = _age(table, done, f"{component}_age")
    visits = history.replacements.select("machine", "date").unique().sort("machine", "date")
    # The rhythm is the median gap of the visits so far: no later visit is looked at.
    gaps = visits.with_columns(gap=pl.col("date").diff().over("machine").dt.total_days().cast(pl.Float64)).with_columns(
        rhythm=pl.col("gap").rolling_median(9, min_samples=1).over("machine")
    )
    table = _age(table, gaps.select("machine", "date", "rhythm"), "visit_age")
    table = table.with_columns(
        visit_due=pl.when(pl.col("rhythm") > 0).then(pl.col("rhythm") - pl.col("visit_age") % pl.col("rhythm"))
    ).drop("rhythm")
    still = history.machines.with_columns(
        pl.col(c).rank("dense").cast(pl.Float64)
        for c in history.machines.columns
        if history.machines[c].dtype == pl.String and c != "machine"
    )
    return table.join(still, on="machine", how="left").sort("machine", "date")


def _age(table: pl.DataFrame, events: pl.DataFrame, name: str) -> pl.DataFrame:
    """Adds the days since the last event up to the day itself (null before the first), and the event's columns."""
    last = events.unique(["machine", "date"]).sort("date").with_columns(happened=pl.col("date"))
    return (
        table.sort("date")
        .join_asof(last, on="date", by="machine", strategy="backward", check_sortedness=False)
        .with_columns((pl.col("date") - pl.col("happened")).dt.total_days().cast(pl.Float64).alias(name))
        .drop("happened")
    )


def _components(history: MachineHistory) -> list[str]:
    return history.replacements["component"].unique().sort().to_list()


def failed_ahead(table: pl.DataFrame, failures: pl.DataFrame, component: str, first: int, last: int) -> Array:
    """For each row (machine, date): did the component fail on a day from date+first to date+last (1.0 or 0.0)?"""
    mine = failures.filter(pl.col("component") == component).select("machine", "date")
    days = [
        mine.select("machine", pl.col("date").dt.offset_by(f"-{h}d"), hit=pl.lit(1.0)) for h in range(first, last + 1)
    ]
    hits = pl.concat(days).unique(["machine", "date"])
    joined = table.select("machine", "date").join(hits, on=["machine", "date"], how="left", maintain_order="left")
    return np.asarray(joined["hit"].fill_null(0.0).to_numpy(), float)


def probabilities(
    history: MachineHistory, start: datetime, *, trees: int = 120, known: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Probability of failure of every component on each of the next seven days, for the days from `start`.

    Learns only from days whose whole horizon lies before `start`; one classifier a component and window of days ahead
    (a discrete-time hazard; Singer and Willett 1993). The days of a window share its probability evenly.

    Args:
        history: All that has been recorded.
        start: First day (datetime) that is predicted and not learned from.
        trees: Boosting rounds.
        known: `features(history)`, if already made.

    Returns:
        machine, date, component, p1 … p7 (failure on the h-th day after `date`), p (failure in any of the seven).

    Raises:
        NpqError: Fewer than 10 failures of a component to learn from.
    """
    table = known if known is not None else features(history)
    names = [c for c in table.columns if c not in ("machine", "date")]
    x = table.select(pl.col(names).cast(pl.Float64)).to_numpy()
    date = table["date"]
    asked = (date >= start).to_numpy()
    learner = boosted("binary", trees=trees, leaves=12, rate=0.05, least=15, columns=0.6)
    past = history.failures.filter(pl.col("date") < start)
    frames = []
    for component in _components(history):
        count = past.filter(pl.col("component") == component).height
        if count < 10:
            raise NpqError(f"maintenance: {component} failed {count} times before {start}; 10 are needed to learn from")
        columns = {}
        for first, last in WINDOWS:
            learned = (date.dt.offset_by(f"{last}d") < start).to_numpy()
            y = failed_ahead(table, past, component, first, last)
            p = np.clip(learner(x[learned], y[learned], x[asked]), 0.0, 1.0)
            for h in range(first, last + 1):
                columns[f"p{h}"] = p / (last - first + 1)
        none = np.prod([1.0 - columns[f"p{h}"] for h in range(1, 4)], axis=0) * (1.0 - columns["p4"] * (HORIZON - 3))
        frames.append(
            table.filter(pl.Series(asked))
            .select("machine", "date", component=pl.lit(component))
            .with_columns(*(pl.Series(k, v) for k, v in columns.items()), pl.Series("p", np.clip(1.0 - none, 0.0, 1.0)))
        )
    return pl.concat(frames)


def plan(
    risk: pl.DataFrame, params: MaintenanceParams, recent: dict[tuple[object, str], int] | None = None
) -> MaintenancePlan:
    r"""The replacements of least expected cost for one look at all machines.

    With x[i,t] = 1 if component i is replaced on the evening of day t (t >= lead - 1), c the cost of a planned replacement,
    W the days it protects, p[i,h] the probability of failure on day h,

        min  sum_it c x[i,t] + sum_ih p[i,h] l[h] (1 - sum_{h-W <= t < h} x[i,t])
        s.t. sum_i x[i,t] <= crew,  sum_t x[i,t] <= 1,  x >= 0,

    where l[h] is the cost of a failure if no later look can prevent it (h <= lead), else what it costs if a later look sees
    the share `caught` of them. The constraints are those of a transport problem (totally unimodular): the linear program
    has whole-numbered vertices, and its value is its own proven bound. Solved with CVXPY and HiGHS' simplex. After Barlow
    and Hunter (1960), with a predicted hazard instead of one of age.

    Args:
        risk: machine, component, p1 … p7, one row a component, as of the same day.
        params: Costs and limits.
        recent: Days since a replacement that is not yet in the records, by (machine, component); its protection is counted.

    Raises:
        NpqError: The solver proved no optimum.
    """
    import cvxpy as cp

    p = risk.select([f"p{h}" for h in range(1, HORIZON + 1)]).to_numpy()
    for i, key in enumerate(risk.select("machine", "component").iter_rows()):
        since = (recent or {}).get(key)
        if since is not None:
            p[i, : max(0, params.protects - since)] = 0.0
    later = params.caught * params.planned + (1 - params.caught) * params.failure
    loss = np.array([params.failure if h <= params.lead else later for h in range(1, HORIZON + 1)])
    expected = p * loss
    total = float(expected.sum())
    slots = list(range(params.lead - 1, HORIZON))
    saved = np.array([[row[t : t + params.protects].sum() for t in slots] for row in expected]).reshape(
        len(p), len(slots)
    )
    worth = np.flatnonzero(saved.max(axis=1, initial=0.0) > params.planned)
    nothing = pl.DataFrame(
        schema={"machine": risk["machine"].dtype, "component": pl.String, "day": pl.Int64, "saves": pl.Float64}
    )
    if len(worth) == 0 or params.crew == 0:
        return MaintenancePlan(nothing, "optimal", total, total, total)
    x = cp.Variable((len(worth), len(slots)), nonneg=True)
    # Ties go to the earlier day: waiting without a reason is no plan.
    tie = 1e-7
    net = saved[worth] - params.planned - tie * np.arange(len(slots))
    limits = [cp.sum(x, axis=1) <= 1]
    crew = [cp.sum(x, axis=0) <= params.crew] if params.crew is not None else []
    problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(net, x))), limits + crew)
    if not highs.solve(problem) or problem.status != cp.OPTIMAL or x.value is None:
        raise NpqError(f"maintenance: no plan proven optimal ({problem.status})")
    chosen = np.argwhere(np.asarray(x.value) > 0.5)
    gain = float(sum(saved[worth][i, t] - params.planned for i, t in chosen))
    actions = (
        risk.select("machine", "component")[worth[chosen[:, 0]].tolist()].with_columns(
            pl.Series("day", [slots[t] for t in chosen[:, 1]], dtype=pl.Int64),
            pl.Series("saves", [float(saved[worth][i, t] - params.planned) for i, t in chosen], dtype=pl.Float64),
        )
        if len(chosen)
        else nothing
    )
    price = {t: float(v) for t, v in zip(slots, np.atleast_1d(crew[0].dual_value), strict=True)} if crew else {}
    return MaintenancePlan(
        actions, str(problem.status), total - gain, total - float(problem.value) - tie * x.size, total, price
    )


def follow(risk: pl.DataFrame, days: Sequence[datetime], params: MaintenanceParams) -> pl.DataFrame:
    """Plans anew every day and carries out what falls due first: machine, component, date (of the replacement, at its end).

    Args:
        risk: `probabilities` of all days.
        days: Days at whose end is replaced; the look precedes them by lead - 1 days.
        params: Costs and limits.
    """
    by_day = {key[0]: part for key, part in risk.partition_by("date", as_dict=True, maintain_order=True).items()}
    done: dict[tuple[object, str], datetime] = {}
    rows: list[tuple[object, object, object]] = []
    for day in days:
        look = day - timedelta(days=params.lead - 1)
        if look not in by_day:
            continue
        recent = {key: (look - when).days for key, when in done.items() if (look - when).days < params.protects}
        found = plan(by_day[look], params, recent)
        for machine, component in (
            found.actions.filter(pl.col("day") == params.lead - 1).select("machine", "component").iter_rows()
        ):
            done[machine, component] = day
            rows.append((machine, component, day))
    return _actions(rows, risk)


def by_age(history: MachineHistory, days: Sequence[datetime], interval: int) -> pl.DataFrame:
    """The fixed rule: replaces a component when `interval` days have passed since its last replacement known by then."""
    table = features_age(history, days)
    rows: list[tuple[object, object, object]] = []
    done: dict[tuple[object, str], datetime] = {}
    for machine, date, component, age in table.sort("date", "machine", "component").iter_rows():
        mine = done.get((machine, component))
        since = age if mine is None else min(age if age is not None else 10**6, (date - mine).days)
        if since is not None and since >= interval:
            done[machine, component] = date
            rows.append((machine, component, date))
    return _actions(rows, table)


def features_age(history: MachineHistory, days: Sequence[datetime]) -> pl.DataFrame:
    """machine, date, component, age (days since its last replacement up to that day) for the days."""
    wanted = history.telemetry.filter(pl.col("date").is_in(list(days))).select("machine", "date")
    return pl.concat(
        _age(wanted, history.replacements.filter(pl.col("component") == c).select("machine", "date"), "age").select(
            "machine", "date", pl.lit(c).alias("component"), "age"
        )
        for c in _components(history)
    )


def _actions(rows: list[tuple[object, object, object]], like: pl.DataFrame) -> pl.DataFrame:
    schema = {"machine": like["machine"].dtype, "component": pl.String(), "date": like["date"].dtype}
    return pl.DataFrame(rows, schema=schema, orient="row")


def replay(
    actions: pl.DataFrame, failures: pl.DataFrame, days: Sequence[datetime], machines: int, params: MaintenanceParams
) -> dict[str, float]:
    """Cost per machine-year of replacements on `days` against the failures of the days after them.

    A failure is averted if its component was replaced one to `protects` days before; every replacement costs, useless ones too.
    """
    first, last = min(days), max(days)
    due = failures.filter((pl.col("date") > first) & (pl.col("date").dt.offset_by("-1d") <= last)).unique(
        ["machine", "component", "date"]
    )
    near = due.join(actions.rename({"date": "done"}), on=["machine", "component"]).filter(
        (pl.col("date") - pl.col("done")).dt.total_days().is_between(1, params.protects)
    )
    averted = near.unique(["machine", "component", "date"]).height
    years = machines * len(days) / 365
    cost = actions.height * params.planned + (due.height - averted) * params.failure
    return {
        "cost": cost / years,
        "actions": float(actions.height),
        "averted": float(averted),
        "failures": float(due.height),
        "run_to_failure": due.height * params.failure / years,
        "clairvoyant": due.height * params.planned / years,
    }
