"""The plant in the closed loop: npq's decisions against the plant's own careful planner, with the same orders and luck.

The naive world runs parts to failure, inspects every second unit and leaves settings alone. Beside it the parts alone live under
rules that replace them at a fixed age: the yardstick for maintenance. How a day on the shop floor goes does not belong here (see
`shop_floor`).
"""

from __future__ import annotations

import copy
import json
from datetime import date, datetime, time, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company.config import PLANNED_DAYS
from npq_assets.company.history import live
from npq_assets.company.landing import Beginning, LandingFolder
from npq_assets.company.plant import (
    COMPONENTS,
    INSPECTED_EVERY,
    INSPECTION_COST,
    MISS_COST,
    SETTINGS,
    Plant,
    changes_frame,
    inspections_frame,
    measurements_frame,
)
from npq_assets.company.shop_floor import FloorDay, Lot, Order
from npq_assets.company.wear import SHAPE
from npq_assets.company.worlds import EQUIPMENT_KINDS, CostRow, Service
from npq_assets.errors import RunError
from npq_assets.settings import Home

Floats = NDArray[np.float64]

BEST_INTERVAL = "best fixed interval"
HINDSIGHT_INTERVAL = "best fixed interval in hindsight"
# Ages tried in hindsight, as multiples of the ages of least long-run cost; the last one never replaces.
INTERVAL_FACTORS = (0.7, 0.85, 1.0, 1.2, 1.45, 1.75, 2.1, np.inf)


class PlantWorld:
    """The plant, lived under npq's decisions and under its own planner.

    The stores order from it as they do under their own planner, whatever npq orders for them: both worlds get the same
    orders, short stops, pace and luck with scrap; the n-th part of a machine lasts as long in each of them. The dispatcher works
    the day's schedule in sequence within regular time and the plan's overtime; what is not made is not made. Parts that the
    maintenance plan names for the day are replaced before it opens, alerted units inspected, set-points approved by the plant's
    engineer, who trusts npq, and taken by machines that know their own limits.
    """

    domain = "manufacturing"
    kinds: tuple[str, ...] = ("stock", "setups", "overtime", "lateness", *EQUIPMENT_KINDS)

    def __init__(self, beginning: Beginning) -> None:
        past = beginning.plant.past()
        self._plant: Plant = copy.copy(beginning.plant)
        self._stores = beginning.present.copy()
        self._demand = beginning.demand
        self._ours, self._theirs = past.floor.copy(), past.floor.copy()
        self._planner = past.planner.copy()
        self._ordered = list(self._plant._ordered[-6:])
        for floor in (self._ours, self._theirs):
            floor.plant = self._plant
        self._planner.plant = self._plant
        self._units = np.zeros((2, 2))  # (worlds, due and in time)
        last = len(past.days) - 1
        made = self._plant.units_frame(last, past.worn[last]) if last >= 0 else pl.DataFrame()
        # Units measured on the day before, which wait for whoever inspects them.
        self._waiting = [made, made]
        # The parts alone, under a fixed age of replacement each.
        self._by_age = [(_best_intervals() * factor, past.floor.wear.copy()) for factor in INTERVAL_FACTORS]
        self._by_age_cost = np.zeros(len(INTERVAL_FACTORS))
        self._naive_cost = dict.fromkeys(EQUIPMENT_KINDS, 0.0)
        self.refused_set_points = 0

    def open(self, folder: LandingFolder, first_day: date, last_day: date) -> None:
        """Lands what was bought before the first day; what the calendar will be has landed with the history."""
        # The components whose turn it is on the first day are ordered before it opens, as on any other day.
        self._theirs.buy(first_day)
        self._land_receipts(folder, first_day, self._ours.buy(first_day))

    def step(self, home: Home, folder: LandingFolder, day: date) -> list[CostRow]:
        """Lives a day in all worlds; see `worlds.World`."""
        plant, offset = self._plant, self._plant.offset(day)
        lots, overtime = read_work(home, plant, day)
        changed = self._take_set_points(home, folder, day)
        alerted = set(_decided(home, "quality_alerts", day)["unit_id"].to_list())
        inspected = [
            self._waiting[0].filter(pl.col("unit_id").is_in(list(alerted))),
            self._waiting[1].filter(pl.col("number") % INSPECTED_EVERY == 0),
        ]
        quality = [self._quality_cost(w, seen) for w, seen in zip(self._waiting, inspected, strict=True)]
        ours = self._ours.live(day, lots, overtime, read_replacements(home, plant, day))
        theirs = self._theirs.live(day, *self._planner.lots(day, self._theirs))
        floors = (self._ours, self._theirs)
        self._waiting = [plant.units_frame(offset, floor.wear.worn(offset)) for floor in floors]
        traded = live(self._stores, self._demand)
        self._ordered = [*self._ordered, traded.ordered.sum(axis=0).astype(np.float64)][-7:]
        new = plant.orders_of(day, self._ordered)
        for floor in floors:
            floor.accept(new)
        self._planner.observe(new)
        self._units += np.array([[lived.due, lived.in_time] for lived in (ours, theirs)])
        tomorrow = day + timedelta(days=1)
        self._theirs.buy(tomorrow)
        self._land(folder, day, ours, new, self._ours.buy(tomorrow))
        self._land_equipment(folder, day, ours, inspected[0])
        self._replace_by_age(day)
        none = np.zeros(len(plant.machine_ids))
        rows = self._costs(day, (ours, quality[0], changed), (theirs, quality[1], none))
        for row in rows:
            if row.kind in self._naive_cost:
                self._naive_cost[row.kind] += row.naive
        return rows

    def yardsticks(self) -> dict[str, dict[str, float]]:
        """Costs of fixed ages of replacement, by the rule's name; scrap and energy are those of the naive world.

        One planner knows how long parts live in the long run, the other also what will happen in these very weeks.
        """
        other = {kind: self._naive_cost[kind] for kind in EQUIPMENT_KINDS if kind != "failures"}
        known = float(self._by_age_cost[INTERVAL_FACTORS.index(1.0)])
        return {
            BEST_INTERVAL: {"failures": known, **other},
            HINDSIGHT_INTERVAL: {"failures": float(self._by_age_cost.min()), **other},
        }

    def _replace_by_age(self, day: date) -> None:
        """Lives the day with the parts alone under each fixed rule: replaced past their age, on days when the machine works."""
        offset = self._plant.offset(day)
        for k, (ages, wear) in enumerate(self._by_age):
            due = [
                (int(m), int(c))
                for m, c in np.argwhere((wear.age(offset) >= ages) & (wear.remaining(offset) > 0))
                if self._plant.regular_minutes(int(m), day) > 0
            ]
            done = wear.step(offset, due)
            self._by_age_cost[k] += float(self._plant.standstill(day, done)[2].sum())

    def _take_set_points(self, home: Home, folder: LandingFolder, day: date) -> Floats:
        """Approves and publishes the day's set-points as files, and takes them as machines do; money of the changes (M)."""
        from npq_assets.manufacturing import approval

        money = np.zeros(len(self._plant.machine_ids))
        points = approval.proposals(home, day)
        if not points:
            return money
        approval.approve(home, day, [point.decision_id for point in points], "the plant's engineer")
        sent = approval.publish(home, approval.file_publisher(home), live=True)
        machines = {name: m for m, name in enumerate(self._plant.machine_ids)}
        names = {setting.name: k for k, setting in enumerate(SETTINGS)}
        rows = []
        for delivery in sent:
            place = approval.outbox(home) / f"{delivery.message_id}.json"
            if delivery.status != "sent" or not place.exists():
                continue
            message = json.loads(place.read_text())
            m, k = _known(machines, message["machine_id"], "machine_settings"), names.get(message["setting"])
            if k is None or not SETTINGS[k].low <= message["value"] <= SETTINGS[k].high:
                self.refused_set_points += 1
                continue
            money[m] += abs(message["value"] - self._ours.settings[m, k]) * SETTINGS[k].change_cost
            self._ours.settings[m, k] = message["value"]
            key = delivery.set_point.decision_id
            rows.append(
                (self._plant.machine_ids[m], SETTINGS[k].name, datetime.combine(day, time(0)), message["value"], key)
            )
        folder.write("manufacturing.setting_changes", f"setting-changes-{day}", changes_frame(rows))
        return money

    def _quality_cost(self, units: pl.DataFrame, inspected: pl.DataFrame) -> Floats:
        """Money for inspections, defective units found, and those that passed (M)."""
        plant = self._plant
        machines = {name: m for m, name in enumerate(plant.machine_ids)}
        products = {name: p for p, name in enumerate(plant.company.product_ids)}
        found, money = set(inspected["unit_id"]), np.zeros(len(machines))
        for unit, machine, product, defect in units.select("unit_id", "machine_id", "product_id", "defect").iter_rows():
            if unit in found:
                value = float(plant.company.unit_cost[products[product]]) if defect else 0.0
                money[machines[machine]] += INSPECTION_COST + value
            elif defect:
                money[machines[machine]] += MISS_COST
        return money

    def _land_equipment(self, folder: LandingFolder, day: date, ours: FloorDay, inspected: pl.DataFrame) -> None:
        plant = self._plant
        offset = plant.offset(day)
        worn = self._ours.wear.worn(offset)[None]
        at = np.array([offset])
        folder.write("manufacturing.telemetry", f"telemetry-{day}", plant.telemetry_frame(at, worn))
        folder.write("manufacturing.machine_errors", f"errors-{day}", plant.errors_frame(at, worn))
        replaced = plant.replacements_frame([(offset, part) for part in ours.replaced])
        folder.write("manufacturing.component_replacements", f"replacements-{day}", replaced)
        folder.write("manufacturing.measurements", f"measurements-{day}", measurements_frame(self._waiting[0]))
        folder.write("manufacturing.inspections", f"inspections-{day}", inspections_frame(inspected))

    def _land(
        self,
        folder: LandingFolder,
        day: date,
        happened: FloorDay,
        new: list[Order],
        bought: list[tuple[date, int, float]],
    ) -> None:
        plant, tomorrow = self._plant, day + timedelta(days=1)
        folder.write("manufacturing.production_log", f"production-{day}", plant.log_frame(happened.runs))
        changed = {order.order_id: order for order in [*happened.changed, *new]}
        folder.write(
            "manufacturing.customer_orders", f"customer-orders-{tomorrow}", plant.orders_frame(list(changed.values()))
        )
        folder.write(
            "manufacturing.plant_stock",
            f"plant-stock-{tomorrow}",
            plant.stock_frame(tomorrow, self._ours.stock, self._ours.components),
        )
        self._land_receipts(folder, tomorrow, bought)
        if tomorrow.weekday() == 0:
            since = tomorrow + timedelta(days=PLANNED_DAYS - 7)
            until = tomorrow + timedelta(days=PLANNED_DAYS)
            name = f"machine-calendar-{tomorrow}"
            folder.write("manufacturing.machine_calendar", name, plant.calendar_frame(since, until))
            folder.write("manufacturing.energy_prices", f"energy-prices-{tomorrow}", plant.energy_frame(since, until))

    def _land_receipts(self, folder: LandingFolder, day: date, bought: list[tuple[date, int, float]]) -> None:
        if bought:
            folder.write(
                "manufacturing.component_receipts", f"component-receipts-{day}", self._plant.receipts_frame(bought)
            )

    def _by_line(self, lived: FloorDay, quality: Floats, changed: Floats) -> dict[str, Floats]:
        """Costs by line: machines' money where they stand, products' where they are made first."""
        plant = self._plant
        lines = list(dict.fromkeys(plant.machine_line))
        of_machine = np.array([lines.index(line) for line in plant.machine_line])
        of_product = of_machine[plant.primary]
        money = {
            "stock": (of_product, lived.stock_cost),
            "setups": (of_machine, lived.setup_cost + changed),
            "overtime": (of_machine, lived.overtime_cost),
            "lateness": (of_product, lived.late_cost),
            "failures": (of_machine, lived.failure_cost),
            "scrap": (of_machine, lived.scrap_cost + quality),
            "energy": (of_machine, lived.energy_cost),
        }
        return {kind: np.bincount(at, m, len(lines)).astype(np.float64) for kind, (at, m) in money.items()}

    def _costs(
        self, day: date, ours: tuple[FloorDay, Floats, Floats], theirs: tuple[FloorDay, Floats, Floats]
    ) -> list[CostRow]:
        lines = list(dict.fromkeys(self._plant.machine_line))
        npq, naive = self._by_line(*ours), self._by_line(*theirs)
        return [
            CostRow(day, f"line {line}", kind, float(npq[kind][k]), float(naive[kind][k]))
            for kind in self.kinds
            for k, line in enumerate(lines)
        ]

    def service(self) -> Service:
        """Units that fell due, and those delivered on their day."""
        (npq_due, npq_served), (naive_due, naive_served) = self._units.tolist()
        return Service((npq_due, naive_due), (npq_served, naive_served))


def _best_intervals() -> NDArray[np.float64]:
    """The age of replacement of least long-run cost of each component, by one who knows its true life."""
    from npq_assets.equipment.lifetimes import Weibull, best_interval

    return np.array([best_interval(Weibull(SHAPE, c.life_days), c.planned_cost, c.failure_cost) for c in COMPONENTS])


def _decided(home: Home, table: str, day: date) -> pl.DataFrame:
    """A decision table as of a day; empty where nothing was decided."""
    from npq_assets.contracts import DECISIONS
    from npq_assets.publishing import read_decisions

    return read_decisions(home, DECISIONS[f"manufacturing.{table}"], day)


def read_replacements(home: Home, plant: Plant, day: date) -> list[tuple[int, int]]:
    """Machines and components that the maintenance plan as of a day names for that day.

    Raises:
        RunError: It names unknown machines or components.
    """
    machines = {name: m for m, name in enumerate(plant.machine_ids)}
    components = {component.name: c for c, component in enumerate(COMPONENTS)}
    rows = _decided(home, "maintenance_plan", day).filter(pl.col("planned_on") == day)
    return [
        (_known(machines, machine, "maintenance_plan"), _known(components, component, "maintenance_plan"))
        for machine, component in rows.select("machine_id", "component").sort("machine_id", "component").iter_rows()
        if plant.regular_minutes(machines.get(machine, 0), day)
        + plant.maintenance_minutes(machines.get(machine, 0), day)
        > 0
    ]


def read_work(home: Home, plant: Plant, day: date) -> tuple[list[list[Lot]], Floats]:
    """What npq decided for the day: lots of every maker in the schedule's sequence, and the plan's overtime (M).

    Raises:
        RunError: There are no decision files, or they name unknown machines or products.
    """
    frames = {}
    for table in ("production_plan", "job_schedule"):
        place = home.decisions("manufacturing", table, day)
        if not place.exists():
            raise RunError(f"{place.parent}: no decisions as of {day}; see the run's log for why it did not decide")
        frames[table] = pl.read_parquet(place, hive_partitioning=False)
    machines = {name: k for k, name in enumerate(plant.machine_ids)}
    products = {name: k for k, name in enumerate(plant.company.product_ids)}
    overtime = np.zeros(len(machines))
    # Packing follows what is made: its overtime is used as needed.
    overtime[plant.makers :] = 1440.0
    today = frames["production_plan"].filter(pl.col("period_start") == day)
    for machine, minutes in (
        today.group_by("machine_id").agg(pl.col("overtime_minutes").sum()).sort("machine_id").iter_rows()
    ):
        overtime[_known(machines, machine, "production_plan")] = np.ceil(minutes)
    lots: list[list[Lot]] = [[] for _ in range(plant.makers)]
    schedule = frames["job_schedule"].filter(pl.col("starts_at").dt.date() == day).sort("starts_at", "order_id")
    for machine, product, quantity in schedule.select("machine_id", "product_id", "quantity").iter_rows():
        m, p = _known(machines, machine, "job_schedule"), _known(products, product, "job_schedule")
        if m >= plant.makers:
            continue
        if m not in plant.machines_of[p]:
            raise RunError(f"job_schedule as of {day}: {machine} cannot make {product}")
        if lots[m] and lots[m][-1].product == p:
            lots[m][-1] = Lot(p, lots[m][-1].quantity + quantity)
        else:
            lots[m].append(Lot(p, float(quantity)))
    return lots, overtime


def _known(names: dict[str, int], name: str, table: str) -> int:
    if name not in names:
        raise RunError(f"{table}: {name!r} does not exist")
    return names[name]
