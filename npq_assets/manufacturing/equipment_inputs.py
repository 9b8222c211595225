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

from npq_assets.equipment.control import believable
from npq_assets.equipment.maintenance import HORIZON, MachineHistory
from npq_assets.errors import NpqError, Unavailable
from npq_assets.manufacturing.inputs import IN_FORCE_DAYS, plan_folder
from npq_assets.settings import Home
from npq_assets.storage import fingerprint

# Readings that stand still for so many days, though the sensor usually moves, are those of a stuck sensor.
STUCK_DAYS = 2
# A reading so many times the sensor's usual width away from its middle is none, whatever the machine does.
IMPOSSIBLE = 1e6
# Days for which such a reading is told.
SAID_DAYS = 7
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
    telemetry, stuck, absurd = _telemetry(home, as_of, sorted(set(parts["machine_id"])), parts)
    notes += [
        f"sensor {sensor} of {machine} read {value:.3g} on {day}, which cannot be: not used"
        for machine, sensor, day, value in absurd.iter_rows()
    ]
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
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """A row a machine and day with the sensors' daily means, stuck ones silenced; the stuck ones; the last absurd readings."""
    readings = (
        mart(home, "sensor_day")
        .filter((pl.col("measured_on") < as_of) & pl.col("value").is_finite())
        .filter(pl.col("machine_id").is_in(machines))
        .sort("machine_id", "sensor", "measured_on")
        .with_columns(pl.col("value").round_sig_figs(9))
    )
    # Sums of such readings are no numbers any more, and would take the days around them along.
    value = pl.col("value")
    middle = value.median().over("sensor")
    width = (value.quantile(0.95) - value.quantile(0.05)).over("sensor")
    far = (value.abs() > 1e100) | ((width > 0) & ((value - middle).abs() > IMPOSSIBLE * width))
    absurd = (
        readings.filter(far & (pl.col("measured_on") >= as_of - timedelta(days=SAID_DAYS)))
        .group_by("machine_id", "sensor", maintain_order=True)
        .agg(pl.col("measured_on", "value").last())
    )
    readings = readings.filter(~far)
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
    return wide.sort("machine", "date"), stuck, absurd


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
    return found.select(
        "machine_id", pl.col("period_start").alias("on"), (pl.col("worth_per_hour") / 60).alias("by_plan")
    )


# --- Quality -------------------------------------------------------------------------------------------------------------------

# Where no cost of quality is landed: an inspection against a miss, as ratios of one another.
INSPECTION_COST, MISS_COST = 1.0, 20.0
# Units not inspected so many days after they were measured have left the plant.
OPEN_DAYS = 3
# The latest so many units say which share is inspected by the fixed rule.
RULE_UNITS = 4000


@dataclass(frozen=True)
class QualityInputs:
    """What decisions about units may use.

    Attributes:
        as_of: The decision is taken before this day opens.
        features: Names of the measurements, in order.
        learned: unit_id, machine_id, product_id, defect (null: good), a column a feature: units inspected before the Monday of
            the week, so that a week's days share one model.
        open: The same of units measured in the last days and not inspected, with inspection_cost, miss_cost, is_new (measured
            on the day before).
        daily: machine_id, feature, on, value (mean), units: measurements by day.
        inspection_cost: Cost of an inspection, where a product has none of its own.
        miss_cost: Cost of a defect that passes.
        inspected_share: Share of the units measured that was inspected in the last weeks, or in those before npq first alerted
            units: the fixed inspection.
        notes: What had to be assumed.
    """

    as_of: date
    features: tuple[str, ...]
    learned: pl.DataFrame
    open: pl.DataFrame
    daily: pl.DataFrame
    inspection_cost: float
    miss_cost: float
    inspected_share: float
    notes: tuple[str, ...] = ()

    @cached_property
    def learned_hash(self) -> str:
        """Hash of the units learned from."""
        return fingerprint(self.learned, repr(self.features))

    @cached_property
    def snapshot(self) -> str:
        """Hash of all that the decision looks at."""
        numbers = (self.inspection_cost, self.miss_cost, self.inspected_share)
        return fingerprint(self.learned, self.open, self.daily, {"as_of": self.as_of.isoformat(), "n": repr(numbers)})


def read_quality(home: Home, as_of: date) -> QualityInputs:
    """Reads the marts as they were known before `as_of` opened.

    Raises:
        Unavailable: No measurement is known by then.
    """
    opens = pl.lit(midnight(as_of)).dt.replace_time_zone("UTC")
    monday = pl.lit(midnight(as_of - timedelta(days=as_of.weekday()))).dt.replace_time_zone("UTC")
    since = pl.lit(midnight(as_of - timedelta(days=LEARNED_DAYS))).dt.replace_time_zone("UTC")
    units = mart(home, "unit_quality").filter(
        (pl.col("measured_at") < opens) & (pl.col("measured_at") >= since) & pl.col("machine_id").is_not_null()
    )
    if units.is_empty():
        raise Unavailable(f"manufacturing.measurements: no unit measured before {as_of} is known; land measurements")
    known = (pl.col("is_inspected") & (pl.col("inspected_at") < opens)).alias("known")
    features = tuple(sorted(set(units["feature"])))
    # Features are measured at several stations and times: a unit is one all the same, of the machine that had it last.
    measured = units.with_columns(known).sort("unit_id", "measured_at", "feature")
    facts = ("machine_id", "product_id", "measured_at", "inspected_at", "known", "defect")
    one = measured.group_by("unit_id", maintain_order=True).agg(pl.col(facts).drop_nulls().last())
    values = measured.pivot(on="feature", index="unit_id", values="value", sort_columns=True)
    wide = one.join(values, on="unit_id", maintain_order="left").sort("measured_at", "unit_id")
    notes: list[str] = []
    costs = mart(home, "quality_costs").select(pl.col("product_id").fill_null(""), "inspection_cost", "miss_cost")
    common = costs.filter(pl.col("product_id") == "")
    if common.height:
        inspection, miss = float(common["inspection_cost"][0]), float(common["miss_cost"][0])
    elif costs.height:
        inspection, miss = float(costs["inspection_cost"].mean() or 0.0), float(costs["miss_cost"].mean() or 0.0)  # type: ignore[arg-type]
    else:
        inspection, miss = INSPECTION_COST, MISS_COST
        notes.append(f"no quality costs landed: an inspection is taken to cost {inspection:g}, a miss {miss:g}")
    miss = max(miss, 1e-6)
    recent = pl.lit(midnight(as_of - timedelta(days=OPEN_DAYS))).dt.replace_time_zone("UTC")
    yesterday = pl.lit(midnight(as_of - timedelta(days=1))).dt.replace_time_zone("UTC")
    waiting = (
        wide.filter(~pl.col("known") & (pl.col("measured_at") >= recent))
        .join(costs.filter(pl.col("product_id") != ""), on="product_id", how="left", maintain_order="left")
        .with_columns(
            pl.col("inspection_cost").fill_null(inspection), pl.col("miss_cost").fill_null(miss).clip(lower_bound=1e-6),
            (pl.col("measured_at") >= yesterday).alias("is_new"),
        )
    )  # fmt: skip
    # Units measured long enough ago to have been inspected if anybody meant to. Once npq alerts units, inspections follow the
    # alerts, which are not the fixed rule: it is the one of the weeks before.
    before = wide.filter(pl.col("measured_at") < recent)
    if (alerted := _first_alerts(home, as_of)) is not None:
        unalerted = before.filter(
            pl.col("measured_at") < pl.lit(midnight(alerted - timedelta(days=OPEN_DAYS))).dt.replace_time_zone("UTC")
        )
        before = unalerted if unalerted.height else before
    before = before.tail(RULE_UNITS)
    columns = ("unit_id", "machine_id", "product_id", "defect", *features)
    daily = units.group_by("machine_id", "feature", pl.col("measured_at").dt.date().alias("on")).agg(
        pl.col("value").mean().round_sig_figs(9), pl.len().alias("units")
    )
    return QualityInputs(
        as_of=as_of,
        features=features,
        learned=wide.filter(pl.col("known") & (pl.col("inspected_at") < monday)).select(columns).sort("unit_id"),
        open=waiting.select(*columns[:3], *features, "inspection_cost", "miss_cost", "is_new").sort("unit_id"),
        daily=daily.sort("machine_id", "feature", "on"),
        inspection_cost=inspection,
        miss_cost=miss,
        inspected_share=round(float(before["known"].mean() or 0.0), 6) if before.height else 0.0,  # type: ignore[arg-type]
        notes=tuple(notes),
    )


def _first_alerts(home: Home, as_of: date) -> date | None:
    """The first day before `as_of` of which alerts on units are stored; None if no unit was ever alerted."""
    for place in sorted(home.decision_folder("manufacturing", "quality_alerts").glob("as_of=*/*.parquet")):
        day = date.fromisoformat(place.parent.name.removeprefix("as_of="))
        if day < as_of and pl.scan_parquet(place, hive_partitioning=False).select(pl.len()).collect().item():
            return day
    return None


# --- Settings ------------------------------------------------------------------------------------------------------------------

# Days from which prices and the usual day's work are taken.
USUAL_DAYS = 28


@dataclass(frozen=True)
class ControlInputs:
    """What proposals of settings may use.

    Attributes:
        as_of: The decision is taken before this day opens.
        settings: machine_id, setting, low, high, current (value in force), ramp_limit, cost_per_unit_change, scrap_sign,
            energy_sign, minutes_sign.
        changes: machine_id, setting, on, value, previous, decision_id: changes before that day.
        rows: machine_id, on, product, late, setups, units, standard, scrap, energy, minutes: the log.
        values: machine_id, setting, on, value: what was in force on each day of the log; null on days of a change.
        prices: machine_id, scrap (money a unit), energy (a kWh), minutes (a minute).
        notes: What had to be assumed.
    """

    as_of: date
    settings: pl.DataFrame
    changes: pl.DataFrame
    rows: pl.DataFrame
    values: pl.DataFrame
    prices: pl.DataFrame
    notes: tuple[str, ...] = ()

    @cached_property
    def snapshot(self) -> str:
        """Hash of all that the decision looks at."""
        frames = (self.settings, self.changes, self.rows, self.values, self.prices)
        return fingerprint(*frames, {"as_of": self.as_of.isoformat()})


def read_control(home: Home, as_of: date) -> ControlInputs:
    """Reads the marts as they were known before `as_of` opened.

    Raises:
        Unavailable: There are no settings, none of their past, or no production log.
    """
    settings = mart(home, "process_settings")
    if settings.is_empty():
        raise Unavailable("manufacturing.process_settings: no rows accepted, so there is nothing to set; land them")
    opens = pl.lit(midnight(as_of)).dt.replace_time_zone("UTC")
    changes = (
        mart(home, "setting_changes").filter(pl.col("changed_at") < opens).sort("machine_id", "setting", "changed_at")
    )
    if changes.is_empty():
        raise Unavailable(
            f"manufacturing.setting_changes: no change known before {as_of}, so the log cannot show what settings do; land them"
        )
    log = (
        mart(home, "production_day")
        .filter((pl.col("produced_on") < as_of) & (pl.col("produced_on") >= as_of - timedelta(days=LEARNED_DAYS)))
        .join(settings.select("machine_id").unique(), on="machine_id", how="semi")
        .filter((pl.col("standard_minutes") > 0) & (pl.col("run_minutes") > 0))
    )
    if log.is_empty():
        raise Unavailable(f"manufacturing.production_log: no output with a routing known before {as_of}; land the log")
    notes: list[str] = []
    keyed = changes.with_columns(
        pl.col("changed_at").dt.convert_time_zone("UTC").dt.replace_time_zone(None).alias("at"),
        pl.col("value").shift(1).over("machine_id", "setting").alias("previous"),
    )
    latest = keyed.group_by("machine_id", "setting").agg(pl.col("value").last().alias("in_force"))
    width = pl.col("high") - pl.col("low")
    limits = settings.join(latest, on=["machine_id", "setting"], how="left").select(
        "machine_id", "setting", "low", "high", pl.coalesce("in_force", "current").alias("current"),
        # Without a ramp limit a tenth of the range is a step that people would take.
        pl.coalesce("ramp_limit", 0.1 * width).alias("ramp_limit"), pl.col("cost_per_unit_change").fill_null(0.0),
        *(pl.col(f"{name}_sign").fill_null(0) for name in ("scrap", "energy", "minutes")),
    )  # fmt: skip
    products = mart(home, "products", "common").select("product_id", "unit_cost").unique("product_id")
    written = log.select(
        "machine_id", on="produced_on", product="product_id",
        late=(~pl.col("shift").is_in(["", "early"])).cast(pl.Int64), setups="setups",
        units=pl.col("good_quantity") + pl.col("scrap_quantity"), standard="standard_minutes", scrap="scrap_quantity",
        energy="energy_kwh", minutes="run_minutes",
    ).sort("machine_id", "on", "product", "late", "units")  # fmt: skip
    numbered = written.with_row_index("row")
    kept = believable(numbered, ["machine_id"])
    left_out, rows = numbered.join(kept, on="row", how="anti"), kept.drop("row")
    if rows.is_empty():
        raise Unavailable(
            f"manufacturing.production_log: no row before {as_of} can be believed; look at units and meters"
        )
    if left_out.height:
        first = left_out.row(0, named=True)
        notes.append(
            f"manufacturing.production_log: {left_out.height} rows have an amount, energy or run time that is missing or cannot "
            f"be, the first of {first['machine_id']} on {first['on']}: settings are not learned from them"
        )
    return ControlInputs(
        as_of=as_of,
        settings=limits.sort("machine_id", "setting"),
        changes=keyed.select(
            "machine_id",
            "setting",
            on=pl.col("at").dt.date(),
            value="value",
            previous="previous",
            decision_id="decision_id",
        ),
        rows=rows,
        values=_in_force(rows, keyed),
        prices=_prices(home, as_of, rows, products, notes),
        notes=tuple(notes),
    )


def _in_force(rows: pl.DataFrame, changes: pl.DataFrame) -> pl.DataFrame:
    """The value of each setting on each day of the log; null on days on which it changed after midnight."""
    days = rows.select("machine_id", "on").unique().with_columns(_moment("on").alias("opens"))
    wanted = days.join(changes.select("machine_id", "setting").unique(), on="machine_id").sort("opens")
    known = wanted.join_asof(
        changes.select("machine_id", "setting", "at", "value").sort("at"),
        left_on="opens", right_on="at", by=["machine_id", "setting"], strategy="backward", check_sortedness=False,
    )  # fmt: skip
    mixed = (
        changes.filter(pl.col("at").dt.time() != time(0))
        .select("machine_id", "setting", pl.col("at").dt.date().alias("on"), pl.lit(True).alias("mixed"))
        .unique()
    )
    return (
        known.join(mixed, on=["machine_id", "setting", "on"], how="left")
        .with_columns(pl.when(pl.col("mixed").is_null()).then("value").alias("value"))
        .select("machine_id", "setting", "on", "value")
        .sort("machine_id", "setting", "on")
    )


def _prices(home: Home, as_of: date, rows: pl.DataFrame, products: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Money for a scrapped unit, a kWh and a minute by machine, from the last weeks and the plan in force."""
    recent = rows.filter(pl.col("on") >= as_of - timedelta(days=USUAL_DAYS))
    base = recent if recent.height else rows
    scrap = (
        base.join(products, left_on="product", right_on="product_id", how="left")
        .group_by("machine_id")
        .agg((pl.col("unit_cost").fill_null(0.0) * pl.col("units")).sum() / pl.col("units").sum())
        .rename({"unit_cost": "scrap"})
    )
    ahead = mart(home, "energy_prices").filter(
        pl.col("valid_at").dt.date().is_between(as_of - timedelta(days=USUAL_DAYS), as_of + timedelta(days=HORIZON))
    )
    price = ahead["price_per_kwh"].mean()
    if price is None:
        notes.append("no energy prices landed: energy is priced at nothing")
    worth = _worth(home, as_of)
    machines = mart(home, "machines").select("machine_id", "cost_per_minute")
    found = scrap.join(machines, on="machine_id", how="left")
    if worth is None:
        notes.append("no production plan of the last days: time is priced by the machines' cost a minute")
        found = found.with_columns(pl.col("cost_per_minute").alias("minutes"))
    else:
        usual = worth.group_by("machine_id").agg(pl.col("by_plan").mean().alias("minutes"))
        found = found.join(usual, on="machine_id", how="left")
    return found.select(
        "machine_id",
        pl.col("scrap").fill_null(0.0).round(6),
        pl.lit(float(price) if isinstance(price, float) else 0.0).round(6).alias("energy"),
        pl.coalesce("minutes", "cost_per_minute").fill_null(0.0).clip(lower_bound=0.0).round(4),
    ).sort("machine_id")
