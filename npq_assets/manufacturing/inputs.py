"""What manufacturing decisions may look at: the marts, cut to what was known before the as-of day opened.

The only place that decides what was known when; engines get frames that hold nothing later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

from npq_assets.errors import NpqError, Unavailable
from npq_assets.periods import DAYS, period_of
from npq_assets.settings import Home, Period, Settings
from npq_assets.storage import fingerprint

# How far back machines' pace and standstill are measured, and orders' habits.
MEASURED_DAYS = 56
HABIT_DAYS = 112
MINUTES_PER_DAY = 1440
# A plan or schedule older than this is not followed any more.
IN_FORCE_DAYS = 7
# Working time that the day's maintenance plan takes from machines, beside the production plan.
STOPS_FILE = "maintenance_stops.parquet"
# Days over which standstill longer than a day's working time goes on.
STOP_REACH = 14
# A year's cost of capital and storage, where products carry no holding cost of their own.
YEARLY_HOLDING = 0.25
# Where orders carry no cost of lateness: this share of the goods' value a day.
LATE_SHARE = 0.05


@dataclass(frozen=True)
class ManufacturingInputs:
    """Everything that a production plan and a schedule may use.

    Attributes:
        as_of: The decision is taken before this day opens.
        period: Length of a planning period.
        settings: The home's settings.
        products: product_id, family, unit_cost, holding_cost (per unit and period), on_hand (opening of `as_of`).
        routings: product_id, operation, machine_id, minutes_per_unit (standard), setup_minutes, setup_cost, setup_family,
            family_setup_minutes, family_setup_cost, minimum_lot, transport_batch, is_last.
        machines: machine_id, line, minutes_per_day, overtime_minutes_per_day, overtime_cost_per_minute, power_kw, pace
            (minutes taken for a good unit over standard minutes), down_share (standstill over regular time), last_product
            (what it made last; null if unknown).
        calendar: machine_id, calendar_on, minutes, overtime_minutes: days from `as_of` on that differ.
        orders: Orders in hand with something owed: order_id, product_id, owed, due_on, ordered_on, late_rate (money per unit
            and day).
        order_history: All orders known: order_id, product_id, quantity, ordered_on, due_on.
        output: Output of the past: produced_on, product_id, line, quantity.
        components: component_id, on_hand, for components of some bill.
        bills: product_id, component_id, quantity.
        receipts: component_id, arrives_on, quantity (from `as_of` on).
        energy: on, price (mean price per kWh of a day), from `as_of` on.
        skipped: What had to be assumed or could not be computed, with the reason.
        in_force: Lots from `as_of` on of the plan that people follow, the latest earlier day's: period_start, product_id,
            machine_id, quantity, …; empty if there is none.
        setups_in_force: period_start, product_id, machine_id: set-ups of that plan made ahead at a period's end.
        cells_in_force: cell, strain, solved_on: how that plan's cost stood to its bound when it was last solved.
        scheduled: Operations of the schedule that people follow, the latest earlier day's that was decided, from the opening of
            `as_of` on: job, operation, machine, start, end (minutes from it); empty if there is none.
        forecast: Production forecast of the week's Monday: product_id, week_start, in_hand (then), mean (units due in the
            week), orders_used (whether mean contains in_hand); empty if there is none.
    """

    as_of: date
    period: Period
    settings: Settings
    products: pl.DataFrame
    routings: pl.DataFrame
    machines: pl.DataFrame
    calendar: pl.DataFrame
    orders: pl.DataFrame
    order_history: pl.DataFrame
    output: pl.DataFrame
    components: pl.DataFrame
    bills: pl.DataFrame
    receipts: pl.DataFrame
    energy: pl.DataFrame
    skipped: tuple[str, ...] = ()
    in_force: pl.DataFrame = field(default_factory=pl.DataFrame)
    cells_in_force: pl.DataFrame = field(default_factory=pl.DataFrame)
    scheduled: pl.DataFrame = field(default_factory=pl.DataFrame)
    forecast: pl.DataFrame = field(default_factory=pl.DataFrame)
    setups_in_force: pl.DataFrame = field(default_factory=pl.DataFrame)

    @property
    def days(self) -> int:
        """Days in a period."""
        return DAYS[self.period]

    @cached_property
    def snapshot(self) -> str:
        """Hash of all that the decision looks at."""
        frames = (
            self.products, self.routings, self.machines, self.calendar, self.orders, self.order_history, self.output,
            self.components, self.bills, self.receipts, self.energy, self.in_force, self.cells_in_force, self.scheduled,
            self.forecast, self.setups_in_force,
        )  # fmt: skip
        return fingerprint(
            *frames, {"as_of": self.as_of.isoformat(), "period": self.period, "settings": repr(self.settings)}
        )

    def with_order_due(self, order_id: str, due_on: date) -> ManufacturingInputs:
        """The same inputs, had an order another due date: the planner's what-if.

        Raises:
            NpqError: The order is not in hand as of the day, or the new date is past.
        """
        if self.orders.filter(pl.col("order_id") == order_id).is_empty():
            raise NpqError(f"order {order_id!r} is not in hand as of {self.as_of}; see manufacturing.customer_orders")
        if due_on < self.as_of:
            raise NpqError(f"due date {due_on} of order {order_id} lies before the as-of day {self.as_of}")
        moved = pl.when(pl.col("order_id") == order_id).then(pl.lit(due_on)).otherwise(pl.col("due_on")).alias("due_on")
        return replace(
            self,
            orders=self.orders.with_columns(moved).sort("due_on", "order_id"),
            order_history=self.order_history.with_columns(moved),
        )


def read_inputs(home: Home, as_of: date) -> ManufacturingInputs:
    """Reads the manufacturing marts as they were known before `as_of` opened.

    Raises:
        Unavailable: There are no machines, routings or orders known by then.
        NpqError: The marts do not exist.
    """
    period = period_of(home)
    notes: list[str] = []
    machines, routings = _mart(home, "machines"), _mart(home, "routings")
    if machines.is_empty() or routings.is_empty():
        lacking = "machines" if machines.is_empty() else "routings"
        raise Unavailable(f"manufacturing.{lacking}: no rows accepted, so nothing can be planned; land {lacking}")
    history = _mart(home, "customer_orders").filter(pl.col("ordered_on") < as_of)
    log = _mart(home, "production_day").filter(pl.col("produced_on") < as_of)
    if history.is_empty() and log.is_empty():
        raise Unavailable(f"manufacturing.customer_orders: no order had come in before {as_of}; land orders in hand")
    output = (
        log.filter(pl.col("is_output"))
        .group_by("produced_on", "product_id")
        .agg(pl.col("good_quantity").sum().alias("quantity"))
        .sort("produced_on", "product_id")
    )
    catalogue = _catalogue(home, period, notes)
    orders = _orders_in_hand(history, catalogue, routings, as_of, notes)
    wanted = sorted(set(routings["product_id"]))
    unmade = sorted(set(orders["product_id"]) - set(wanted))
    if unmade:
        notes.append(
            f"{len(unmade)} products are ordered but have no routing, the first {unmade[0]}: their orders are not planned"
        )
    orders = orders.filter(pl.col("product_id").is_in(wanted))
    bills = _mart(home, "bills_of_material").select("product_id", "component_id", "quantity")
    bills = bills.filter(pl.col("product_id").is_in(wanted)).sort("product_id", "component_id")
    counts = _counts(home, as_of)
    drawn = _drawn(log, bills, counts)
    products = _with_stock(
        pl.DataFrame({"product_id": wanted}), catalogue, counts, output, history, drawn, as_of, notes
    )
    bought = sorted(set(bills["component_id"]) - set(wanted))
    arriving = _arriving(home, as_of)
    receipts = arriving.filter(pl.col("arrives_on") >= as_of)
    components = pl.DataFrame({"component_id": bought}, schema={"component_id": pl.String})
    components = _component_stock(components, counts, arriving, drawn, as_of, notes)
    uncounted = components.filter(pl.col("on_hand").is_null())["component_id"].to_list()
    if uncounted:
        notes.append(
            f"{len(uncounted)} components have no stock count by {as_of}, the first {uncounted[0]}: not limiting"
        )
    components = components.drop_nulls("on_hand").select("component_id", "on_hand").sort("component_id")
    in_force, cells_in_force, setups_in_force = _plan_in_force(home, as_of)
    return ManufacturingInputs(
        as_of=as_of,
        period=period,
        settings=home.settings,
        products=products,
        routings=_routings(routings, machines, notes),
        machines=_machines(home, machines, log, as_of),
        calendar=_calendar(home, machines, as_of),
        orders=orders,
        order_history=history.select("order_id", "product_id", "quantity", "ordered_on", "due_on").sort(
            "ordered_on", "order_id"
        ),
        output=output,
        components=components,
        bills=bills.filter(pl.col("component_id").is_in(components["component_id"].to_list() + wanted)),
        receipts=receipts.filter(pl.col("component_id").is_in(bought)),
        energy=_energy(home, as_of),
        skipped=tuple(notes),
        in_force=in_force,
        cells_in_force=cells_in_force,
        scheduled=_schedule_in_force(home, as_of),
        forecast=_forecast(home, as_of),
        setups_in_force=setups_in_force,
    )


def plan_folder(home: Home, as_of: date) -> Path:
    """Where a day's plan lies."""
    return home.root / "plans" / "manufacturing" / f"as_of={as_of.isoformat()}"


def _plan_in_force(home: Home, as_of: date) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The latest plan decided for an earlier day, if it is not too old to be followed: lots from `as_of` on, its cells, set-ups."""
    days = sorted(
        date.fromisoformat(place.parent.name.removeprefix("as_of="))
        for place in plan_folder(home, as_of).parent.glob("as_of=*/plan.json")
    )
    before = [day for day in days if day < as_of and (as_of - day).days <= IN_FORCE_DAYS]
    # Decided: its checks passed and people got it.
    before = [day for day in before if home.decisions("manufacturing", "production_plan", day).exists()]
    if not before:
        return pl.DataFrame(), pl.DataFrame(), pl.DataFrame()
    lots = pl.read_parquet(plan_folder(home, before[-1]) / "lots.parquet", hive_partitioning=False)
    facts = json.loads((plan_folder(home, before[-1]) / "plan.json").read_text())
    cells = pl.DataFrame(
        [(cell["cell"], cell["strain"], cell["solved_on"]) for cell in facts["cells"]],
        schema={"cell": pl.String, "strain": pl.Float64, "solved_on": pl.String},
        orient="row",
    )
    columns = ("period_start", "product_id", "machine_id", "quantity", "run_minutes", "setup_minutes")
    place = plan_folder(home, before[-1]) / "setups.parquet"  # not of plans stored before it was kept
    setups = pl.read_parquet(place, hive_partitioning=False) if place.exists() else pl.DataFrame()
    ahead = setups.filter(pl.col("period_start") >= as_of) if setups.height else setups
    return lots.filter(pl.col("period_start") >= as_of).select(columns), cells, ahead


def _calendar(home: Home, machines: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Days from `as_of` on that differ, the standstill of the day's maintenance plan taken off."""
    calendar = (
        _mart(home, "machine_calendar")
        .filter(pl.col("calendar_on") >= as_of)
        .select("machine_id", "calendar_on", "minutes", "overtime_minutes")
    )
    place = plan_folder(home, as_of) / STOPS_FILE
    if place.exists():
        stops = pl.read_parquet(place, hive_partitioning=False)
        usual = machines.select("machine_id", "minutes_per_day")
        stops = _by_working_time(stops, calendar, dict(usual.iter_rows()))
        calendar = (
            calendar.join(stops, on=["machine_id", "calendar_on"], how="full", coalesce=True)
            .join(usual, on="machine_id", how="left")
            .select(
                "machine_id",
                "calendar_on",
                (pl.coalesce("minutes", "minutes_per_day", pl.lit(0.0)) - pl.col("stopped").fill_null(0.0))
                .clip(lower_bound=0.0)
                .alias("minutes"),
                "overtime_minutes",
            )
        )
    return calendar.sort("machine_id", "calendar_on")


def _by_working_time(stops: pl.DataFrame, calendar: pl.DataFrame, usual: dict[str, float]) -> pl.DataFrame:
    """Standstill by machine and day (stopped), at most the day's working time: what is left goes on when work would.

    Args:
        stops: machine_id, on, minutes.
        calendar: machine_id, calendar_on, minutes of days that differ.
        usual: Working time by machine.
    """
    special = {
        (m, day): minutes for m, day, minutes in calendar.select("machine_id", "calendar_on", "minutes").iter_rows()
    }
    taken: dict[tuple[str, date], float] = {}
    for machine, on, minutes in stops.select("machine_id", "on", "minutes").sort("machine_id", "on").iter_rows():
        for k in range(STOP_REACH):
            day = on + timedelta(days=k)
            free = special.get((machine, day), usual.get(machine, 0.0)) - taken.get((machine, day), 0.0)
            used = min(max(free, 0.0), minutes)
            if used > 0:
                taken[machine, day] = taken.get((machine, day), 0.0) + used
            minutes -= used
    schema = {"machine_id": pl.String, "calendar_on": pl.Date, "stopped": pl.Float64}
    return pl.DataFrame([(*key, minutes) for key, minutes in taken.items()], schema=schema, orient="row")


def _schedule_in_force(home: Home, as_of: date) -> pl.DataFrame:
    """The schedule of the latest earlier day on which one was decided, in minutes from the opening of `as_of`."""
    for back in range(1, IN_FORCE_DAYS + 1):
        day = as_of - timedelta(days=back)
        place = plan_folder(home, day) / "schedule_jobs.parquet"
        # Decided: its checks passed and people got it.
        if place.exists() and home.decisions("manufacturing", "job_schedule", day).exists():
            jobs = pl.read_parquet(place, hive_partitioning=False)
            shift = back * MINUTES_PER_DAY
            return (
                jobs.select(
                    pl.col("lot_id").alias("job"),
                    "operation",
                    pl.col("machine_id").alias("machine"),
                    (pl.col("start") - shift).alias("start"),
                    (pl.col("end") - shift).alias("end"),
                )
                .filter(pl.col("start") >= 0)
                .sort("machine", "start", "job", "operation")
            )
    return pl.DataFrame()


def forecast_folder(home: Home, as_of: date) -> Path:
    """Where the production forecast of a day's week lies."""
    monday = as_of - timedelta(days=as_of.weekday())
    return home.root / "forecasts" / "manufacturing" / f"week={monday.isoformat()}"


def _forecast(home: Home, as_of: date) -> pl.DataFrame:
    """The production forecast made as of the week's Monday: no order of the week is in it."""
    folder = forecast_folder(home, as_of)
    if not (folder / "forecast.json").exists():
        return pl.DataFrame()
    facts = json.loads((folder / "forecast.json").read_text())
    weeks = pl.read_parquet(folder / "weeks.parquet", hive_partitioning=False)
    if weeks.is_empty():
        return pl.DataFrame()
    return weeks.select(
        "product_id", "week_start", "in_hand", "mean", pl.lit(bool(facts.get("earned", False))).alias("orders_used")
    ).sort("product_id", "week_start")


def _mart(home: Home, model: str, domain: str = "manufacturing") -> pl.DataFrame:
    place = home.mart(domain, model)
    if not place.exists():
        raise NpqError(f"{place}: not built yet; materialize marts/{domain}/{model} (npq run does)")
    return pl.read_parquet(place)


def _catalogue(home: Home, period: Period, notes: list[str]) -> pl.DataFrame:
    """product_id, family, unit_cost, holding_cost of a period."""
    found = _mart(home, "products", "common").unique("product_id").sort("product_id")
    lacking = found["holding_cost"].null_count()
    if lacking:
        notes.append(f"{lacking} products have no holding cost: {YEARLY_HOLDING:.0%} of the unit cost a year assumed")
    rate = YEARLY_HOLDING * DAYS[period] / 365
    return found.select(
        "product_id", "family", "unit_cost", pl.col("holding_cost").fill_null(pl.col("unit_cost") * rate)
    )


def _orders_in_hand(
    history: pl.DataFrame, catalogue: pl.DataFrame, routings: pl.DataFrame, as_of: date, notes: list[str]
) -> pl.DataFrame:
    """Orders with something owed when `as_of` opens; deliveries of later days are not known yet."""
    told = history.filter(pl.col("delivered_on").is_not_null() | (pl.col("delivered_quantity") > 0)).height > 0
    if not told and history.filter(pl.col("due_on") < as_of).height:
        notes.append(f"no deliveries landed: orders due before {as_of} are taken as delivered")
        history = history.filter(pl.col("due_on") >= as_of)
    delivered = pl.when(pl.col("delivered_on") >= as_of).then(0.0).otherwise(pl.col("delivered_quantity"))
    late = late_rate()
    setup = routings.group_by("product_id").agg(
        (pl.col("setup_cost") + pl.col("family_setup_cost")).max().clip(lower_bound=1.0).alias("setup")
    )
    owed = (
        history.filter(pl.col("delivered_on").is_null() | (pl.col("delivered_on") >= as_of))
        .with_columns((pl.col("quantity") - delivered).clip(lower_bound=0.0).alias("owed"))
        .filter((pl.col("owed") > 1e-9) & (pl.col("quantity") > 0))
        .join(catalogue.select("product_id", "unit_cost"), on="product_id", how="left")
        .join(setup, on="product_id", how="left")
        .with_columns(late.alias("late_rate"))
    )
    unpriced = owed.filter(~(pl.col("late_cost_per_day") > 0).fill_null(False))
    worthless = unpriced.filter(pl.col("late_rate").is_null()).height
    if unpriced.height > worthless:
        notes.append(
            f"{unpriced.height - worthless} orders have no cost of lateness: {LATE_SHARE:.0%} of their value a day assumed"
        )
    if worthless:
        # At no price nothing would ever be made for them, and the plan would call that optimal.
        notes.append(
            f"{worthless} orders have neither a cost of lateness nor a unit cost: a set-up of their product a day assumed; "
            "land late_cost_per_day, or common.products"
        )
    return owed.select(
        "order_id",
        "product_id",
        "owed",
        "due_on",
        "ordered_on",
        pl.coalesce("late_rate", pl.col("setup").fill_null(1.0) / pl.col("owed")).alias("late_rate"),
    ).sort("due_on", "order_id")


def late_rate() -> pl.Expr:
    """Money per unit and day late of rows with late_cost_per_day, quantity and unit_cost; null where nothing has a price."""
    own, value = pl.col("late_cost_per_day") / pl.col("quantity"), pl.col("unit_cost") * LATE_SHARE
    return pl.when(own > 0).then(own).when(value > 0).then(value)


def _counts(home: Home, as_of: date) -> pl.DataFrame:
    """The last count of each product by the opening of `as_of`: product_id, counted_on, on_hand."""
    return (
        _mart(home, "plant_stock")
        .filter(pl.col("counted_on") <= as_of)
        .sort("product_id", "counted_on")
        .group_by("product_id", maintain_order=True)
        .agg(pl.col("counted_on").last(), pl.col("on_hand").last())
    )


def _with_stock(
    products: pl.DataFrame,
    catalogue: pl.DataFrame,
    counts: pl.DataFrame,
    output: pl.DataFrame,
    history: pl.DataFrame,
    drawn: pl.DataFrame,
    as_of: date,
    notes: list[str],
) -> pl.DataFrame:
    """Products with costs and the stock at the opening of `as_of`: an older count is carried forward."""
    found = products.join(catalogue, on="product_id", how="left").join(counts, on="product_id", how="left")
    uncounted = found["counted_on"].null_count()
    if uncounted:
        notes.append(f"{uncounted} of {found.height} products have no stock count by {as_of}: 0 on hand assumed")
    old = found.filter(pl.col("counted_on") < as_of).select("product_id", "counted_on")
    if old.height:
        notes.append(f"{old.height} stock counts are older than {as_of}: carried forward by output and deliveries")
    made = (
        output.join(old, on="product_id")
        .filter(pl.col("produced_on") >= pl.col("counted_on"))
        .group_by("product_id")
        .agg(pl.col("quantity").sum().alias("made"))
    )
    gone = (
        history.join(old, on="product_id")
        .filter((pl.col("delivered_on") >= pl.col("counted_on")) & (pl.col("delivered_on") < as_of))
        .group_by("product_id")
        .agg(pl.col("quantity").sum().alias("gone"))
    )
    unpriced = found["unit_cost"].null_count()
    if unpriced:
        notes.append(f"{unpriced} products are not in common.products: their stock is priced at nothing")
    return (
        found.join(made, on="product_id", how="left")
        .join(gone, on="product_id", how="left")
        .join(drawn, on="product_id", how="left")
        .select(
            "product_id",
            pl.col("family").fill_null(""),
            pl.col("unit_cost").fill_null(0.0),
            pl.col("holding_cost").fill_null(0.0),
            (pl.col("on_hand").fill_null(0.0) + pl.sum_horizontal("made", -pl.col("gone"), -pl.col("drawn")))
            .clip(lower_bound=0.0)
            .alias("on_hand"),
        )
        .sort("product_id")
    )


def _drawn(log: pl.DataFrame, bills: pl.DataFrame, counts: pl.DataFrame) -> pl.DataFrame:
    """What the output since each component's count drew of it, scrapped units included: product_id, drawn."""
    made = log.filter(pl.col("is_output")).select(
        "produced_on", "product_id", (pl.col("good_quantity") + pl.col("scrap_quantity")).alias("made")
    )
    return (
        bills.join(made, on="product_id")
        .join(counts.select(pl.col("product_id").alias("component_id"), "counted_on"), on="component_id")
        .filter(pl.col("produced_on") >= pl.col("counted_on"))
        .group_by(pl.col("component_id").alias("product_id"))
        # Rounded: the order of a sum must not show in the plan.
        .agg((pl.col("quantity") * pl.col("made")).sum().round(6).alias("drawn"))
    )


def _component_stock(
    components: pl.DataFrame,
    counts: pl.DataFrame,
    arriving: pl.DataFrame,
    drawn: pl.DataFrame,
    as_of: date,
    notes: list[str],
) -> pl.DataFrame:
    """component_id, on_hand at the opening of `as_of` (null: never counted): an older count less what was used since."""
    found = components.join(counts.rename({"product_id": "component_id"}), on="component_id", how="left")
    old = found.filter(pl.col("counted_on") < as_of).height
    if old:
        notes.append(f"{old} component counts are older than {as_of}: carried forward by output, bills and receipts")
    came = (
        arriving.join(found.select("component_id", "counted_on"), on="component_id")
        .filter((pl.col("arrives_on") >= pl.col("counted_on")) & (pl.col("arrives_on") < as_of))
        .group_by("component_id")
        .agg(pl.col("quantity").sum().alias("came"))
    )
    return (
        found.join(came, on="component_id", how="left")
        .join(drawn.rename({"product_id": "component_id"}), on="component_id", how="left")
        .with_columns(
            (pl.col("on_hand") + pl.sum_horizontal("came", -pl.col("drawn"))).clip(lower_bound=0.0).alias("on_hand")
        )
    )


def _arriving(home: Home, as_of: date) -> pl.DataFrame:
    return (
        _mart(home, "component_receipts")
        .filter(pl.col("ordered_on").is_null() | (pl.col("ordered_on") <= as_of))
        .select(pl.col("product_id").alias("component_id"), "arrives_on", "quantity")
        .sort("component_id", "arrives_on")
    )


def _routings(routings: pl.DataFrame, machines: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    unknown = routings.join(machines, on="machine_id", how="anti").height
    if unknown:
        notes.append(f"{unknown} routings name machines that were not landed: left out")
    return (
        routings.join(machines.select("machine_id"), on="machine_id", how="semi")
        .select(
            "product_id", "operation", "machine_id", "minutes_per_unit", "setup_minutes", "setup_cost",
            pl.col("setup_family").fill_null(""), "family_setup_minutes", "family_setup_cost", "minimum_lot",
            "transport_batch", "is_last",
        )
        .sort("product_id", "operation", "machine_id")
    )  # fmt: skip


def _machines(home: Home, machines: pl.DataFrame, log: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Machines with the pace and standstill that their last weeks show, and what they made last."""
    recent = log.filter(pl.col("produced_on") >= as_of - timedelta(days=MEASURED_DAYS))
    good_share = pl.col("good_quantity") / (pl.col("good_quantity") + pl.col("scrap_quantity"))
    timed = recent.filter((pl.col("standard_minutes") > 0) & (pl.col("good_quantity") > 0))
    pace = timed.group_by("machine_id").agg(
        (pl.col("run_minutes").sum() / (pl.col("standard_minutes") * good_share).sum()).alias("pace")
    )
    calendar = _mart(home, "machine_calendar").select(
        "machine_id", pl.col("calendar_on").alias("produced_on"), "minutes"
    )
    worked = recent.group_by("machine_id", "produced_on").agg(pl.col("down_minutes").sum())
    standing = (
        worked.join(calendar, on=["machine_id", "produced_on"], how="left")
        .join(machines.select("machine_id", "minutes_per_day"), on="machine_id")
        .group_by("machine_id")
        .agg(
            (
                pl.col("down_minutes").sum() / pl.coalesce("minutes", "minutes_per_day").sum().clip(lower_bound=1.0)
            ).alias("down_share")
        )
    )
    shift = pl.col("shift").replace_strict({"early": 0, "late": 1, "night": 2}, default=0, return_dtype=pl.Int64)
    made = log.filter(pl.col("run_minutes") > 0)
    made = made.filter(pl.col("produced_on") == pl.col("produced_on").max().over("machine_id"))
    # The log tells shifts apart, not the sequence in a shift: what was set up in it came after what was not, and among
    # several the schedule of that day knows which was to be last.
    made = made.join(
        _starts(home, made["produced_on"].unique()), on=["produced_on", "machine_id", "product_id"], how="left"
    )
    last = (
        made.sort("machine_id", shift, pl.col("setup_minutes") > 0, pl.col("scheduled").fill_null(-1), "product_id")
        .group_by("machine_id", maintain_order=True)
        .agg(pl.col("product_id").last().alias("last_product"))
    )
    return (
        machines.join(pace, on="machine_id", how="left")
        .join(standing, on="machine_id", how="left")
        .join(last, on="machine_id", how="left")
        .select(
            "machine_id", "line", "minutes_per_day", "overtime_minutes_per_day", "overtime_cost_per_minute", "power_kw",
            # Rounded: sums taken in another order differ in their last bits, and the same rows must give the same plan.
            pl.col("pace").fill_null(1.0).clip(0.5, 3.0).round(6),
            pl.col("down_share").fill_null(0.0).clip(0.0, 0.9).round(6),
            "last_product",
        )
        .sort("machine_id")
    )  # fmt: skip


def _starts(home: Home, days: pl.Series) -> pl.DataFrame:
    """When each product was last to start on each machine on past days, by the schedules decided for them.

    Returns:
        produced_on, machine_id, product_id, scheduled (minutes from the day's opening).
    """
    schema = {"produced_on": pl.Date, "machine_id": pl.String, "product_id": pl.String, "scheduled": pl.Int64}
    found = [pl.DataFrame(schema=schema)]
    for day in days.sort():
        place = plan_folder(home, day) / "schedule_jobs.parquet"
        if place.exists() and home.decisions("manufacturing", "job_schedule", day).exists():
            jobs = pl.read_parquet(place, hive_partitioning=False).filter(pl.col("start") < MINUTES_PER_DAY)
            starts = jobs.group_by("machine_id", "product_id").agg(pl.col("start").max().alias("scheduled"))
            found.append(starts.with_columns(produced_on=day).select(list(schema)).cast(schema))  # type: ignore[arg-type]
    return pl.concat(found)


def _energy(home: Home, as_of: date) -> pl.DataFrame:
    return (
        _mart(home, "energy_prices")
        .with_columns(pl.col("valid_at").cast(pl.Date).alias("on"))
        .filter(pl.col("on") >= as_of)
        .group_by("on")
        .agg(pl.col("price_per_kwh").mean().alias("price"))
        .sort("on")
    )
