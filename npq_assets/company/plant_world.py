"""The plant in the closed loop: npq's plan and schedule against the plant's own careful planner, with the same orders and luck.

How a day on the shop floor goes does not belong here (see `shop_floor`).
"""

from __future__ import annotations

import copy
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company.config import PLANNED_DAYS
from npq_assets.company.history import live
from npq_assets.company.landing import Beginning, LandingFolder
from npq_assets.company.plant import Plant
from npq_assets.company.shop_floor import FloorDay, Lot, Order
from npq_assets.company.worlds import CostRow, Service
from npq_assets.errors import RunError
from npq_assets.settings import Home

Floats = NDArray[np.float64]


class PlantWorld:
    """The plant, lived under `decisions/manufacturing/{production_plan,job_schedule}` and under its own planner.

    The stores order from it as they do under their own planner, whatever npq orders for them: both worlds get the same
    orders, standstills, pace and scrap. The dispatcher works the day's schedule in sequence within regular time and the
    plan's overtime; what is not made is not made.
    """

    domain = "manufacturing"
    kinds: tuple[str, ...] = ("stock", "setups", "overtime", "lateness")

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

    def open(self, folder: LandingFolder, first_day: date, last_day: date) -> None:
        """Draws wear and repairs up to the last day; what the calendar will be has landed with the history."""
        if self._plant._days:
            self._plant.foresee((last_day - self._plant._days[0]).days + 2)
        # The components whose turn it is on the first day are ordered before it opens, as on any other day.
        self._theirs.buy(first_day)
        self._land_receipts(folder, first_day, self._ours.buy(first_day))

    def step(self, home: Home, folder: LandingFolder, day: date) -> list[CostRow]:
        """Lives a day in both worlds; see `worlds.World`."""
        lots, overtime = read_work(home, self._plant, day)
        ours = self._ours.live(day, lots, overtime)
        theirs = self._theirs.live(day, *self._planner.lots(day, self._theirs))
        traded = live(self._stores, self._demand)
        self._ordered = [*self._ordered, traded.ordered.sum(axis=0).astype(np.float64)][-7:]
        new = self._plant.orders_of(day, self._ordered)
        for floor in (self._ours, self._theirs):
            floor.accept(new)
        self._planner.observe(new)
        self._units += np.array([[lived.due, lived.in_time] for lived in (ours, theirs)])
        tomorrow = day + timedelta(days=1)
        self._theirs.buy(tomorrow)
        self._land(folder, day, ours, new, self._ours.buy(tomorrow))
        return self._costs(day, ours, theirs)

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

    def _costs(self, day: date, ours: FloorDay, theirs: FloorDay) -> list[CostRow]:
        """Costs by line: machines' money where they stand, products' where they are made first."""
        plant = self._plant
        lines = list(dict.fromkeys(plant.machine_line))
        of_machine = np.array([lines.index(line) for line in plant.machine_line])
        of_product = of_machine[plant.primary]

        def by_line(lived: FloorDay) -> dict[str, Floats]:
            count = len(lines)
            return {
                "stock": np.bincount(of_product, lived.stock_cost, count).astype(np.float64),
                "setups": np.bincount(of_machine, lived.setup_cost, count).astype(np.float64),
                "overtime": np.bincount(of_machine, lived.overtime_cost, count).astype(np.float64),
                "lateness": np.bincount(of_product, lived.late_cost, count).astype(np.float64),
            }

        npq, naive = by_line(ours), by_line(theirs)
        return [
            CostRow(day, f"line {line}", kind, float(npq[kind][k]), float(naive[kind][k]))
            for kind in self.kinds
            for k, line in enumerate(lines)
        ]

    def service(self) -> Service:
        """Units that fell due, and those delivered on their day."""
        (npq_due, npq_served), (naive_due, naive_served) = self._units.tolist()
        return Service((npq_due, naive_due), (npq_served, naive_served))


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
