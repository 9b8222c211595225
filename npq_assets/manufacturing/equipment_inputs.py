"""What decisions about equipment may look at: the marts, cut to what was known before the as-of day opened.

The only place that decides what was known when about parts, readings, units and settings. Prices of machine time come from the
production plan in force, the latest of an earlier day: so maintenance is decided before the day's plan, which then takes its
standstill as given, and the graph has no cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property

import polars as pl

from npq_assets.equipment.maintenance import HORIZON, MachineHistory
from npq_assets.errors import NpqError, Unavailable
from npq_assets.manufacturing.inputs import IN_FORCE_DAYS, plan_folder
from npq_assets.settings import Home
from npq_assets.storage import fingerprint

# Readings that stand still for so many days, though the sensor usually moves, are those of a stuck sensor.
STUCK_DAYS = 2
# Log and units that models of quality and settings learn from.
LEARNED_DAYS = 730


@dataclass(frozen=True)
class MaintenanceInputs:
    """What a maintenance plan may use.

    Attributes:
        as_of: The decision is taken before this day opens.
        history: Telemetry (a row a machine and day; stuck sensors silenced), errors, replacements, failures before that day.
        lives: machine, component, days, failed, running, age_known: parts used so far.
        costs: component, planned_cost, failure_cost, planned_minutes, failure_minutes.
        days: machine, on, minutes (working time), maintenance_minutes (free for the crew), worth (of a minute of working time,
            money), priced_by, for the days of the horizon.
        crew: Replacements possible a day; None for no limit.
        stuck: machine, sensor, since: sensors that were silenced.
        notes: What had to be assumed.
    """

    as_of: date
    history: MachineHistory
    lives: pl.DataFrame
    costs: pl.DataFrame
    days: pl.DataFrame
    crew: int | None
    stuck: pl.DataFrame
    notes: tuple[str, ...] = ()

    @cached_property
    def snapshot(self) -> str:
        """Hash of all that the decision looks at."""
        h = self.history
        frames = (h.telemetry, h.errors, h.replacements, h.failures, h.machines, self.lives, self.costs, self.days)
        return fingerprint(*frames, {"as_of": self.as_of.isoformat(), "crew": self.crew})


def mart(home: Home, model: str, domain: str = "manufacturing") -> pl.DataFrame:
    """Rows of a mart.

    Raises:
        NpqError: It was not built yet.
    """
    place = home.mart(domain, model)
    if not place.exists():
        raise NpqError(f"{place}: not built yet; materialize marts/{domain}/{model} (npq run does)")
    return pl.read_parquet(place)


def midnight(day: date) -> datetime:
    """A day as the moment that the engines count days by."""
    return datetime.combine(day, time(0))


def _moment(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Datetime("us"))


def read_maintenance(home: Home, as_of: date) -> MaintenanceInputs:
    """Reads the marts as they were known before `as_of` opened.

    Raises:
        Unavailable: There are no replacements or no costs of components.
    """
    costs = mart(home, "component_costs").select(
        "component", "planned_cost", "failure_cost", pl.col("planned_minutes", "failure_minutes").fill_null(0.0)
    )
    if costs.is_empty():
        raise Unavailable("manufacturing.component_costs: no rows accepted, so no replacement has a price; land them")
    known = mart(home, "component_life").filter(pl.col("started_on").is_null() | (pl.col("started_on") < as_of))
    # What ended the life of the first part is known from that day's end on.
    known = known.filter(pl.col("started_on").is_not_null() | (pl.col("ended_on") < as_of))
    if known.is_empty():
        raise Unavailable(f"manufacturing.component_replacements: none known before {as_of}; land what was replaced")
    notes: list[str] = []
    unpriced = sorted(set(known["component"]) - set(costs["component"]))
    if unpriced:
        notes.append(f"{len(unpriced)} components have no costs, the first {unpriced[0]}: they are not planned")
    parts = (
        known.filter(pl.col("component").is_in(costs["component"].implode()))
        .with_columns((pl.col("ended_on").is_null() | (pl.col("ended_on") >= as_of)).alias("running"))
        .with_columns(pl.when(~pl.col("running")).then("ended_on").alias("ended_on"))
        .with_columns(pl.when(~pl.col("running")).then("ended_by").alias("ended_by"))
        .sort("machine_id", "component", "part_number")
    )
    if parts.is_empty():
        raise Unavailable("manufacturing.component_costs: none of the components that were replaced has a price")
    telemetry, stuck = _telemetry(home, as_of, sorted(set(parts["machine_id"])), parts)
    ended = parts.filter(~pl.col("running"))
    errors = mart(home, "machine_error_day").filter(pl.col("occurred_on") < as_of)
    machines = mart(home, "machines")
    history = MachineHistory(
        telemetry=telemetry,
        errors=errors.filter(pl.col("machine_id").is_in(telemetry["machine"].unique().implode()))
        .select(machine="machine_id", date=_moment("occurred_on"), error="error_code")
        .sort("machine", "date", "error"),
        replacements=ended.select(machine="machine_id", component="component", date=_moment("ended_on")).sort(
            "machine", "component", "date"
        ),
        failures=ended.filter(pl.col("ended_by") == "failure")
        .select(machine="machine_id", component="component", date=_moment("ended_on"))
        .sort("machine", "component", "date"),
        machines=machines.select(
            machine="machine_id",
            machine_age=(pl.lit(as_of) - pl.col("installed_on")).dt.total_days().cast(pl.Float64),
        ).sort("machine"),
    )
    opened = min(d for d in [*parts["started_on"].drop_nulls(), *parts["ended_on"].drop_nulls()])
    lives = parts.select(
        machine="machine_id",
        component="component",
        # A part in use when the log begins has lived at least since then.
        days=(
            pl.coalesce("ended_on", pl.lit(as_of)) - pl.coalesce("started_on", pl.lit(opened))
        ).dt.total_days().cast(pl.Float64),
        failed=(pl.col("ended_by") == "failure").fill_null(False).cast(pl.Int64),
        running="running",
        age_known=pl.col("started_on").is_not_null(),
    )  # fmt: skip
    # A first part of unknown age that ended says little of its life: it is not learned from.
    lives = lives.filter(pl.col("age_known") | pl.col("running"))
    return MaintenanceInputs(
        as_of=as_of,
        history=history,
        lives=lives,
        costs=costs.sort("component"),
        days=_days(home, as_of, machines, notes),
        crew=home.settings.crew_replacements,
        stuck=stuck,
        notes=tuple(notes),
    )


def _telemetry(
    home: Home, as_of: date, machines: list[str], parts: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A row a machine and day with the sensors' daily means, stuck ones silenced; and the stuck ones."""
    readings = (
        mart(home, "sensor_day")
        .filter((pl.col("measured_on") < as_of) & pl.col("value").is_finite())
        .filter(pl.col("machine_id").is_in(machines))
        .sort("machine_id", "sensor", "measured_on")
        .with_columns(pl.col("value").round_sig_figs(9))
    )
    flat = (
        (pl.col("highest") == pl.col("lowest"))
        & (pl.col("readings") > 1)
        & (pl.col("value") == pl.col("value").shift(1).over("machine_id", "sensor"))
    )
    moves = (pl.col("highest") > pl.col("lowest")).mean().over("machine_id", "sensor") > 0.5
    readings = readings.with_columns((flat & moves).fill_null(False).alias("stuck"))
    last = pl.col("measured_on") >= as_of - timedelta(days=STUCK_DAYS)
    stuck = (
        readings.filter(pl.col("stuck") & last)
        .group_by("machine_id", "sensor", maintain_order=True)
        .agg(pl.col("measured_on").min().alias("since"))
        .select(machine="machine_id", sensor="sensor", since="since")
    )
    usable = readings.filter(~pl.col("stuck"))
    seen = [readings["measured_on"].min(), parts["started_on"].min(), parts["ended_on"].min()]
    first = min((d for d in seen if isinstance(d, date)), default=as_of - timedelta(days=1))
    begin = max(first, as_of - timedelta(days=LEARNED_DAYS))
    grid = pl.DataFrame({"machine": machines}).join(
        pl.DataFrame({"date": pl.date_range(begin, as_of - timedelta(days=1), "1d", eager=True)}), how="cross"
    )
    wide = grid.with_columns(_moment("date"))
    if usable.height:
        pivoted = (
            usable.select(machine="machine_id", date=_moment("measured_on"), sensor="sensor", value="value")
            .pivot(on="sensor", index=["machine", "date"], values="value", sort_columns=True)
        )  # fmt: skip
        wide = wide.join(pivoted, on=["machine", "date"], how="left")
    return wide.sort("machine", "date"), stuck


def _days(home: Home, as_of: date, machines: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Working time, the crew's free time and the worth of a minute by machine and day of the horizon."""
    ahead = pl.DataFrame({"on": [as_of + timedelta(days=k) for k in range(HORIZON)]})
    calendar = mart(home, "machine_calendar").select(
        "machine_id", pl.col("calendar_on").alias("on"), pl.col("minutes").alias("special"), "maintenance_minutes"
    )
    rows = machines.select("machine_id", "minutes_per_day", "cost_per_minute").join(ahead, how="cross")
    rows = rows.join(calendar, on=["machine_id", "on"], how="left")
    worth = _worth(home, as_of)
    if worth is None:
        notes.append("no production plan of the last days: standstill is priced by the machines' cost a minute")
        rows = rows.with_columns(pl.lit(None, pl.Float64).alias("by_plan"))
    else:
        usual = worth.group_by("machine_id").agg(pl.col("by_plan").mean().alias("usual"))
        rows = rows.join(worth, on=["machine_id", "on"], how="left").join(usual, on="machine_id", how="left")
        rows = rows.with_columns(pl.coalesce("by_plan", "usual").alias("by_plan"))
    return rows.select(
        machine="machine_id",
        on="on",
        minutes=pl.coalesce("special", "minutes_per_day"),
        maintenance_minutes=pl.col("maintenance_minutes").fill_null(0.0),
        # Rounded: a dual's last bits depend on the path of the simplex.
        worth=pl.coalesce("by_plan", "cost_per_minute").fill_null(0.0).clip(lower_bound=0.0).round(4),
        priced_by=pl.when(pl.col("by_plan").is_not_null()).then(pl.lit("plan")).otherwise(pl.lit("machine")),
    ).sort("machine", "on")


def _worth(home: Home, as_of: date) -> pl.DataFrame | None:
    """What a minute of a machine was worth in the latest plan of an earlier day: machine_id, on, by_plan."""
    places = [
        (day, place.parent / "worth.parquet")
        for place in plan_folder(home, as_of).parent.glob("as_of=*/plan.json")
        if 0 < (as_of - (day := date.fromisoformat(place.parent.name.removeprefix("as_of=")))).days <= IN_FORCE_DAYS
    ]
    if not places:
        return None
    found = pl.read_parquet(max(places)[1], hive_partitioning=False)
    if found.is_empty():
        return None
    return found.select("machine_id", pl.col("period_start").alias("on"), (pl.col("worth_per_hour") / 60).alias("by_plan"))
