"""The plant: machines that make what the stores sell, wear out, break down, and are measured.

Its past runs under its own careful planner (see `plant_planner`), and components are replaced at a fixed age. The stores do
not wait for the plant: what it cannot ship in time is bought in meanwhile, and costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.config import FAMILIES, PLANNED_DAYS
from npq_assets.company.plant_planner import PlantPlanner
from npq_assets.company.shop_floor import RECEIPT_LEAD, FloorDay, Order, Run, ShopFloor
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company

TableFile = tuple[str, str, pl.DataFrame]
Floats = NDArray[np.float64]

MINUTES_PER_DAY = 960.0
OVERTIME_PER_DAY = 240.0
PRODUCTS_PER_MACHINE = 10
# What a family needs made (as in `config`) and the line whose machines can do it.
_LINES = {"bottling": "liquid", "filling": "liquid", "frying": "dry", "baking": "dry", "freezing": "frozen"}
# Share of regular minutes that demand of the busiest eight weeks takes at standard times; stops and setups come on top.
PEAK_LOAD = 0.74
# An alternative machine is slower.
ALTERNATIVE = 1.12
# Orders of customers beside the warehouses: chance a day and product, and how long ahead they come.
OUTSIDE_CHANCE = 0.05
OUTSIDE_SHARE = 0.08
RUSH_SHARE = 0.15
WAREHOUSE_LATE_RATE = 0.30
OUTSIDE_LATE_RATE = 0.60
ENERGY_PRICE = 0.16
# A part at the end of its life slows its machine by this share, and multiplies its scrap.
WORN_SLOWER = 0.08
WORN_SCRAP = 2.0
# Components are replaced at this age unless they failed before: the naive fixed interval.
REPLACE_AT_DAYS = 120
INSPECTED_DAYS = 90
# Stock is counted every day for this long before the as-of day, on Mondays before that.
DAILY_COUNT_DAYS = 56
UNITS_INSPECTED = 8
READINGS_PER_DAY = 4

# Name, unit cost, family of machines that consume it, units per unit of product, days of mean use that are kept at most.
_MATERIALS: tuple[tuple[str, float, str, float, float], ...] = (
    ("Bottle", 0.08, "bottling", 1.0, 18.0),
    ("Sugar (kg)", 0.60, "bottling", 0.09, 26.0),
    ("Potatoes (kg)", 0.45, "frying", 0.8, 15.0),
    ("Flour (kg)", 0.50, "baking", 0.4, 24.0),
    ("Milk (l)", 0.42, "filling", 0.9, 17.0),
    ("Cream (l)", 1.90, "freezing", 0.3, 15.0),
    ("Carton", 0.03, "packing", 0.1, 45.0),
    ("Label", 0.01, "packing", 1.0, 45.0),
)


@dataclass(frozen=True)
class Component:
    """A wearing part: its typical life, what replacing it costs, and the sensor that shows its wear."""

    name: str
    life_days: float
    planned_cost: float
    failure_cost: float
    planned_minutes: float
    failure_minutes: float
    sensor: str
    normal: float
    noise: float
    rise: float


COMPONENTS: tuple[Component, ...] = (
    Component("bearing", 150.0, 350.0, 1900.0, 60.0, 300.0, "vibration", 2.0, 0.25, 3.0),
    Component("pump", 190.0, 600.0, 2600.0, 90.0, 360.0, "pressure", 6.0, 0.20, -2.0),
    Component("heater", 230.0, 450.0, 1500.0, 45.0, 240.0, "temperature", 74.0, 1.2, 12.0),
)

_SETTINGS: tuple[tuple[str, float, float, float], ...] = (
    ("speed", 60.0, 120.0, 2.0),
    ("temperature", 65.0, 90.0, 5.0),
    ("pressure", 4.0, 8.0, 15.0),
)
_DEFECTS = ("leak", "underweight", "label askew")


class Plant:
    """Machines, their products, their wear and their log.

    Arrays over products have length P, over machines M (makers first, then packers), over components C.

    Attributes:
        company: Whose plant it is.
        machine_ids: Machines; each line's makers first, then packing.
        makers: How many of them make; the others pack.
    """

    def __init__(self, company: Company) -> None:
        self.company = company
        self.seed = company.config.seed
        self._days: list[date] = []
        self._ordered: list[Floats] = []
        self._lay_out()
        self._draw()
        self._worn: NDArray[np.float64] = np.zeros((len(self.machine_ids), 0))
        self._down: dict[tuple[int, int], float] = {}
        self._past: Past | None = None

    def _lay_out(self) -> None:
        company = self.company
        lines = list(dict.fromkeys(_LINES.values()))
        line_of_product = np.array([lines.index(_LINES[FAMILIES[f].line]) for f in company.product_family])
        self.machine_ids: list[str] = []
        self.machine_line: list[str] = []
        self.primary = np.zeros(company.shape[1], dtype=np.int64)
        self.alternative = np.full(company.shape[1], -1, dtype=np.int64)
        for number, line in enumerate(lines):
            made = np.flatnonzero(line_of_product == number)
            if not made.size:
                continue
            count = -(-made.size // PRODUCTS_PER_MACHINE)
            first = len(self.machine_ids)
            for k in range(count):
                self.machine_ids.append(f"M-{line.upper()}-{k + 1:02d}")
                self.machine_line.append(line)
            self.primary[made] = first + np.arange(made.size) % count
            if count > 1:
                self.alternative[made] = first + (np.arange(made.size) + 1) % count
        self.makers = len(self.machine_ids)
        for k in range(self.makers):
            self.machine_ids.append(f"M-PACKING-{k + 1:02d}")
            self.machine_line.append("packing")
        packers = len(self.machine_ids) - self.makers
        self.packer_of = self.makers + np.arange(company.shape[1]) % packers
        self.machines_of = [
            [int(a)] + ([int(b)] if b >= 0 else []) for a, b in zip(self.primary, self.alternative, strict=True)
        ]
        self.machine_keys = streams.name_keys(self.machine_ids)

    def _draw(self) -> None:
        company, seed, keys = self.company, self.seed, self.company.product_keys
        flow = company.base_demand.sum(axis=0)
        self._relative: Floats = np.exp(0.2 * streams.normal(seed, "run time", keys))
        self._size(flow, flow)
        self.packing_setup_minutes, self.packing_setup_cost = 3.0, 1.0
        self.setup_minutes: Floats = 5.0 + np.floor(10.0 * streams.uniform(seed, "setup time", keys))
        self.setup_cost: Floats = np.round(7.0 + 14.0 * streams.uniform(seed, "setup cost", keys))
        self.setup_family = company.families
        family_keys = streams.name_keys(self.setup_family)
        self.family_setup_minutes: Floats = 20.0 + np.floor(
            25.0 * streams.uniform(seed, "family setup time", family_keys)
        )
        self.family_setup_cost: Floats = np.round(14.0 + 21.0 * streams.uniform(seed, "family setup cost", family_keys))
        self.startup_scrap: Floats = 2.0 + np.floor(5.0 * streams.uniform(seed, "startup scrap", keys))
        self.scrap_rate: Floats = 0.008 + 0.017 * streams.uniform(seed, "scrap rate", self.machine_keys)
        self.power_kw: Floats = np.round(12.0 + 30.0 * streams.uniform(seed, "power", self.machine_keys), 1)
        self.overtime_cost: Floats = np.round(0.9 + 0.6 * streams.uniform(seed, "overtime", self.machine_keys), 2)
        self.late_rate: Floats = WAREHOUSE_LATE_RATE * company.unit_cost
        self._bill = np.zeros((len(_MATERIALS), company.shape[1]))
        for p in range(company.shape[1]):
            line = FAMILIES[company.product_family[p]].line
            for c, (_, _, user, quantity, _) in enumerate(_MATERIALS):
                if user in (line, "packing"):
                    self._bill[c, p] = quantity

    @property
    def component_target(self) -> Floats:
        """Units of each component up to which it is bought (C)."""
        kept = np.array([material[4] for material in _MATERIALS])
        return np.asarray(np.ceil(kept * (self._bill @ self._flow)))

    def _size(self, peak: Floats, mean: Floats) -> None:
        """Sizes the lines to the market: at the top of the season their regular time is just enough.

        Args:
            peak: Units ordered a day at the busiest time, by product (of the lines' busiest weeks).
            mean: Units ordered a day over the year, by product.
        """
        line = np.array([self.machine_line[m] for m in self.primary])
        per_unit = np.zeros(len(mean))
        for name in dict.fromkeys(self.machine_line[: self.makers]):
            mine = line == name
            load = float((self._relative * np.maximum(peak, 1e-6))[mine].sum())
            # The plant works six days a week for demand of seven.
            per_unit[mine] = MINUTES_PER_DAY * 6 / 7 * PEAK_LOAD * self.machine_line[: self.makers].count(name) / load
        self.minutes_per_unit: Floats = np.round(per_unit * self._relative, 5)
        self.packing_minutes: Floats = np.round(0.6 * self.minutes_per_unit, 5)
        self._flow = np.maximum(mean, 1e-3)

    def _size_to_market(self) -> None:
        """Sizes the lines to what the stores ordered so far."""
        ordered = np.array(self._ordered)
        weeks = min(8 * 7, len(ordered))
        total = np.cumsum(np.vstack([np.zeros(ordered.shape[1]), ordered]), axis=0)
        moving = (total[weeks:] - total[:-weeks]) / weeks  # (windows, P)
        line = np.array([self.machine_line[m] for m in self.primary])
        peak = np.zeros(ordered.shape[1])
        for name in dict.fromkeys(line):
            mine = line == name
            peak[mine] = moving[int((moving * self._relative)[:, mine].sum(axis=1).argmax()), mine]
        self._size(peak * (1.0 + OUTSIDE_SHARE), ordered.mean(axis=0))

    # What the shop floor asks -----------------------------------------------------------------------------------------

    def unit_minutes(self, m: int, p: int) -> float:
        """Standard minutes of a unit of product `p` on maker `m`; infinite where it cannot."""
        if self.primary[p] == m:
            return float(self.minutes_per_unit[p])
        return round(float(self.minutes_per_unit[p]) * ALTERNATIVE, 5) if self.alternative[p] == m else float("inf")

    def setup_between(self, before: int, p: int) -> tuple[float, float]:
        """Minutes and money to set up a maker for `p` after `before` (-1: nothing); 0 for the same product."""
        if before == p:
            return 0.0, 0.0
        other = before < 0 or self.setup_family[before] != self.setup_family[p]
        return (
            float(self.setup_minutes[p] + other * self.family_setup_minutes[p]),
            float(self.setup_cost[p] + other * self.family_setup_cost[p]),
        )

    def regular_minutes(self, m: int, day: date) -> float:
        """Regular working time of a machine on a day (minutes)."""
        special = self._special(m, day)
        return MINUTES_PER_DAY if special is None else special[0]

    def overtime_limit(self, m: int, day: date) -> float:
        """Overtime possible on a day (minutes)."""
        special = self._special(m, day)
        return OVERTIME_PER_DAY if special is None else special[1]

    def _special(self, m: int, day: date) -> tuple[float, float, str] | None:
        """Minutes, overtime and reason of a day that differs from the usual one."""
        if day.weekday() == 6:
            return 0.0, 0.0, "Sunday"
        if day in self._holidays(day.year):
            return 0.0, 0.0, "public holiday"
        # Every machine is serviced in one early shift a month.
        if day.weekday() < 5 and (day.toordinal() + 5 * m) % 28 == 0:
            return MINUTES_PER_DAY / 2, OVERTIME_PER_DAY, "service"
        return None

    def _holidays(self, year: int) -> set[date]:
        if year not in self._holiday_cache:
            events = self.company.events(date(year, 1, 1), date(year, 12, 31))
            self._holiday_cache[year] = {e.on for e in events if e.kind.name == "Public holiday"}
        return self._holiday_cache[year]

    @cached_property
    def _holiday_cache(self) -> dict[int, set[date]]:
        return {}

    def down_minutes(self, m: int, day: date) -> float:
        """Unplanned standstill of a machine on a day: repairs, and short stops (minutes)."""
        luck = float(streams.uniform(self.seed, "short stop", int(self.machine_keys[m]), day.toordinal())[0])
        short = 0.0 if luck < 0.6 else round(150.0 * (luck - 0.6), 1)
        repair = self._down.get((m, (day - self._days[0]).days), 0.0) if self._days else 0.0
        return min(short + repair, MINUTES_PER_DAY)

    def condition(self, m: int, day: date) -> tuple[float, float]:
        """How much slower than standard a machine runs, and its share of scrap, on a day: both grow with wear."""
        offset = (day - self._days[0]).days if self._days else 0
        worn = float(self._worn[m, offset]) if offset < self._worn.shape[1] else 0.0
        luck = float(streams.normal(self.seed, "pace", int(self.machine_keys[m]), day.toordinal())[0])
        slow = 1.02 + 0.02 * luck + WORN_SLOWER * worn
        return max(slow, 0.95), float(self.scrap_rate[m]) * (1.0 + (WORN_SCRAP - 1.0) * worn)

    def component_limit(self, p: int, components: Floats) -> float:
        """Units of a product that the components on hand allow."""
        used = self._bill[:, p] > 0
        return float(np.floor((components[used] / self._bill[used, p]).min() + 1e-9)) if used.any() else float("inf")

    def consume(self, p: int, units: float, components: Floats) -> None:
        """Takes the components of so many units, scrap included."""
        components -= self._bill[:, p] * units
        np.maximum(components, 0.0, out=components)

    def observe(self, month: Sequence[StoreDay]) -> None:
        """Notes what the stores ordered on each day, which the plant has to make."""
        for day in month:
            self._days.append(day.day)
            self._ordered.append(day.ordered.sum(axis=0).astype(np.float64))

    def orders_of(self, day: date, ordered: Sequence[Floats]) -> list[Order]:
        """Orders that come in on `day`.

        A warehouse orders a product once a week, what the stores took since; customers outside order now and then, some in
        a hurry.

        Args:
            day: The day.
            ordered: What the stores ordered on each of the last days, up to `day`, by product.
        """
        company, seed = self.company, self.seed
        found: list[Order] = []
        taken = np.sum(ordered[-7:], axis=0)
        keys = company.product_keys
        phase = np.floor(6.0 * streams.uniform(seed, "order day", keys)).astype(np.int64)
        notice = 4 + np.floor(5.0 * streams.uniform(seed, "notice", keys)).astype(np.int64)
        for p in np.flatnonzero((phase == day.weekday()) & (taken > 0)):
            rate = WAREHOUSE_LATE_RATE * float(company.unit_cost[p])
            found.append(self._order("CO", day, int(p), float(taken[p]), int(notice[p]), rate))
        if day.weekday() < 5:
            luck = streams.uniform(seed, "outside order", day.toordinal(), keys)
            size = streams.uniform(seed, "outside size", day.toordinal(), keys)
            ahead = streams.uniform(seed, "outside notice", day.toordinal(), keys)
            for p in np.flatnonzero(luck < OUTSIDE_CHANCE):
                quantity = float(np.ceil(self._flow[p] * (1.0 + 2.5 * size[p])))
                days = 3 if ahead[p] < RUSH_SHARE else 8 + int(14 * ahead[p])
                found.append(
                    self._order("CX", day, int(p), quantity, days, OUTSIDE_LATE_RATE * float(company.unit_cost[p]))
                )
        return found

    def _order(self, kind: str, day: date, p: int, quantity: float, notice: int, rate: float) -> Order:
        due = day + timedelta(days=notice)
        while self._special(0, due) is not None and self._special(0, due)[0] == 0.0:  # type: ignore[index]
            due += timedelta(days=1)
        return Order(
            f"{kind}-{day:%Y%m%d}-{self.company.product_ids[p]}", p, quantity, day, due, round(rate * quantity, 2)
        )

    def components_frame(self) -> pl.DataFrame:
        """`common.products` of the materials that the plant buys."""
        return pl.DataFrame(
            {
                "product_id": [f"R{i + 1:02d}" for i in range(len(_MATERIALS))],
                "name": [material[0] for material in _MATERIALS],
                "family": ["material"] * len(_MATERIALS),
                "unit_cost": [material[1] for material in _MATERIALS],
            }
        )

    def tables(self) -> Iterator[TableFile]:
        """All landing tables of the manufacturing system."""
        config = self.company.config
        if self._days:
            self._size_to_market()
        yield "manufacturing.machines", "machines", self._machines_frame()
        yield "manufacturing.routings", "routings", self._routings_frame()
        yield "manufacturing.bills_of_material", "bills-of-material", self._materials_frame()
        yield "manufacturing.component_costs", "component-costs", _component_costs_frame()
        yield "manufacturing.process_settings", "process-settings", self._settings_frame()
        if not self._days:
            return
        first, until = self._days[0], config.as_of + timedelta(days=PLANNED_DAYS)
        yield "manufacturing.machine_calendar", f"machine-calendar-{config.as_of}", self.calendar_frame(first, until)
        ahead = config.as_of + timedelta(days=PLANNED_DAYS)
        yield "manufacturing.energy_prices", f"energy-prices-{config.as_of}", self.energy_frame(config.as_of, ahead)
        self.foresee(len(self._days))
        replaced, remaining = self._wear(len(self._days))
        replacements = self._replacements_frame(replaced)
        yield "manufacturing.component_replacements", f"replacements-{config.as_of}", replacements
        yield from self._sensors(remaining)
        yield from self._history()
        yield from self._quality(remaining)

    # Master data ------------------------------------------------------------------------------------------------------

    def _machines_frame(self) -> pl.DataFrame:
        company, seed = self.company, self.company.config.seed
        age = 400 + np.floor(3000 * streams.uniform(seed, "machine age", self.machine_keys)).astype(np.int64)
        count = len(self.machine_ids)
        return pl.DataFrame(
            {
                "machine_id": self.machine_ids,
                "site_id": [company.plant_ids[k % len(company.plant_ids)] for k in range(count)],
                "model": [f"{line} {'A' if a < 1800 else 'B'}" for line, a in zip(self.machine_line, age, strict=True)],
                "installed_on": pl.Series([company.config.as_of - timedelta(days=int(a)) for a in age], dtype=pl.Date),
                "minutes_per_day": [MINUTES_PER_DAY] * count,
                "cost_per_minute": np.round(0.8 + 0.6 * streams.uniform(seed, "machine cost", self.machine_keys), 2),
                "overtime_minutes_per_day": [OVERTIME_PER_DAY] * count,
                "overtime_cost_per_minute": self.overtime_cost,
                "line": self.machine_line,
                "power_kw": self.power_kw,
            }
        )

    def _routings_frame(self) -> pl.DataFrame:
        rows: list[tuple[Any, ...]] = []
        for p, product in enumerate(self.company.product_ids):
            family = (self.setup_family[p], float(self.family_setup_minutes[p]), float(self.family_setup_cost[p]))
            for m in self.machines_of[p]:
                setup, cost = float(self.setup_minutes[p]), float(self.setup_cost[p])
                rows.append((product, 1, self.machine_ids[m], self.unit_minutes(m, p), setup, cost, *family))
            packer = self.machine_ids[self.packer_of[p]]
            packing = (float(self.packing_minutes[p]), self.packing_setup_minutes, self.packing_setup_cost)
            rows.append((product, 2, packer, *packing, None, None, None))
        columns = ["product_id", "operation", "machine_id", "minutes_per_unit", "setup_minutes", "setup_cost"]
        return pl.DataFrame(
            rows, schema=[*columns, "setup_family", "family_setup_minutes", "family_setup_cost"], orient="row"
        )

    def _materials_frame(self) -> pl.DataFrame:
        rows = [
            (product, f"R{c + 1:02d}", float(self._bill[c, p]))
            for p, product in enumerate(self.company.product_ids)
            for c in np.flatnonzero(self._bill[:, p] > 0)
        ]
        return pl.DataFrame(rows, schema=["product_id", "component_id", "quantity"], orient="row")

    def calendar_frame(self, first: date, last: date) -> pl.DataFrame:
        """`manufacturing.machine_calendar` from `first` to the day before `last`."""
        rows = []
        for k in range((last - first).days):
            day = first + timedelta(days=k)
            for m, machine in enumerate(self.machine_ids):
                special = self._special(m, day)
                if special is not None:
                    rows.append((machine, day, *special))
        columns = ["machine_id", "calendar_on", "minutes", "overtime_minutes", "reason"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def energy_frame(self, first: date, last: date) -> pl.DataFrame:
        """`manufacturing.energy_prices` of every hour from `first` to the day before `last`: dear at noon and on some days."""
        days = np.arange(first.toordinal(), last.toordinal())
        daily = 1.0 + 0.25 * streams.normal(self.seed, "energy price", days)
        hourly = 1.0 + 0.25 * np.sin((np.arange(24) - 6) / 24 * 2 * np.pi)
        price = np.round(ENERGY_PRICE * np.maximum(daily, 0.3)[:, None] * hourly[None, :], 4)
        begin = np.datetime64(first, "us")
        stamps = begin + np.arange(price.size).astype("timedelta64[h]")
        return pl.DataFrame({"valid_at": _utc(stamps), "price_per_kwh": price.ravel()})

    def _settings_frame(self) -> pl.DataFrame:
        seed = self.company.config.seed
        rows = []
        for m, machine in enumerate(self.machine_ids):
            for k, (name, low, high, cost) in enumerate(_SETTINGS):
                share = float(streams.uniform(seed, "setting", int(self.machine_keys[m]), k)[0])
                rows.append((machine, name, low, high, round(low + (0.2 + 0.6 * share) * (high - low), 2), cost))
        columns = ["machine_id", "setting", "low", "high", "current", "cost_per_unit_change"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    # What happened ----------------------------------------------------------------------------------------------------

    def foresee(self, days: int) -> None:
        """Draws wear and repairs of so many days from the first observed one; a longer look contains the shorter one."""
        replaced, remaining = self._wear(days)
        self._worn = np.clip(1.0 - remaining / 14.0, 0.0, 1.0).max(axis=1)
        self._down = {}
        for offset, m, c, failed in replaced:
            minutes = COMPONENTS[c].failure_minutes if failed else COMPONENTS[c].planned_minutes
            self._down[m, offset] = self._down.get((m, offset), 0.0) + minutes

    def past(self) -> Past:
        """The plant's history under its own planner, and the state in which it ends."""
        if self._past is None:
            self._past = self._live_past()
        return self._past

    def _live_past(self) -> Past:
        self.foresee(len(self._days))
        components = np.ceil(self.component_target * 0.8)
        floor = ShopFloor(
            self, np.ceil(5.0 * self._flow), components, np.full(len(self.machine_ids), -1, dtype=np.int64)
        )
        planner = PlantPlanner(self, self._flow)
        past = Past(floor, planner)
        for k, day in enumerate(self._days):
            past.counts.append((day, floor.stock.copy(), floor.components.copy()))
            past.receipts += floor.buy(day)
            lots, overtime = planner.lots(day, floor)
            happened = floor.live(day, lots, overtime)
            past.days.append(happened)
            past.orders.update({order.order_id: order for order in happened.changed})
            if k >= 6:
                new = self.orders_of(day, self._ordered[k - 6 : k + 1])
                floor.accept(new)
                planner.observe(new)
                past.orders.update({order.order_id: order for order in new})
        return past

    def _history(self) -> Iterator[TableFile]:
        """`customer_orders`, `production_log`, `plant_stock` and `component_receipts` under the plant's own planner."""
        past, as_of = self.past(), self.company.config.as_of
        yield "manufacturing.customer_orders", f"customer-orders-{as_of}", self.orders_frame(list(past.orders.values()))
        runs = [run for day in past.days for run in day.runs]
        for year in dict.fromkeys(day.year for day in self._days):
            log = self.log_frame([run for run in runs if run.day.year == year])
            yield "manufacturing.production_log", f"production-{year}", log
        recent = as_of - timedelta(days=DAILY_COUNT_DAYS)
        counted = [c for c in past.counts if c[0].weekday() == 0 or c[0] >= recent]
        counted.append((as_of, past.floor.stock, past.floor.components))
        stock = pl.concat([self.stock_frame(*count) for count in counted])
        yield "manufacturing.plant_stock", f"plant-stock-{as_of}", stock
        yield "manufacturing.component_receipts", f"component-receipts-{as_of}", self.receipts_frame(past.receipts)

    def orders_frame(self, orders: Sequence[Order]) -> pl.DataFrame:
        """`manufacturing.customer_orders`."""
        rows = [
            (o.order_id, self.company.product_ids[o.product], o.quantity, o.ordered_on, o.due_on, o.late_cost,
             o.delivered, o.delivered_on)
            for o in sorted(orders, key=lambda o: (o.ordered_on, o.order_id))
        ]  # fmt: skip
        schema = {
            "order_id": pl.String, "product_id": pl.String, "quantity": pl.Float64, "ordered_on": pl.Date,
            "due_on": pl.Date, "late_cost_per_day": pl.Float64, "delivered_quantity": pl.Float64, "delivered_on": pl.Date,
        }  # fmt: skip
        return pl.DataFrame(rows, schema=schema, orient="row")

    def log_frame(self, runs: Sequence[Run]) -> pl.DataFrame:
        """`manufacturing.production_log`."""
        rows = [
            (r.day, self.machine_ids[r.machine], self.company.product_ids[r.product], r.good, r.scrap, r.run_minutes,
             r.setup_minutes, r.down_minutes, r.energy_kwh, r.shift)
            for r in runs
        ]  # fmt: skip
        numbers = ("good_quantity", "scrap_quantity", "run_minutes", "setup_minutes", "down_minutes", "energy_kwh")
        schema = {
            "produced_on": pl.Date, "machine_id": pl.String, "product_id": pl.String,
            **dict.fromkeys(numbers, pl.Float64), "shift": pl.String,
        }  # fmt: skip
        return pl.DataFrame(rows, schema=schema, orient="row")

    def stock_frame(self, day: date, stock: Floats, components: Floats) -> pl.DataFrame:
        """`manufacturing.plant_stock` counted at the opening of `day`."""
        products = pl.concat([pl.Series(self.company.product_ids), self.components_frame()["product_id"]])
        return pl.DataFrame(
            {
                "counted_on": pl.Series([day] * len(products), dtype=pl.Date),
                "product_id": products,
                "on_hand": np.round(np.concatenate([stock, components]), 2),
            }
        )

    def receipts_frame(self, receipts: Sequence[tuple[date, int, float]]) -> pl.DataFrame:
        """`manufacturing.component_receipts` ordered before their day of order opened."""
        rows = [(f"R{c + 1:02d}", on, units, on - timedelta(days=RECEIPT_LEAD)) for on, c, units in receipts]
        schema = {"product_id": pl.String, "arrives_on": pl.Date, "quantity": pl.Float64, "ordered_on": pl.Date}
        return pl.DataFrame(rows, schema=schema, orient="row").sort("arrives_on", "product_id")

    def _wear(self, days: int) -> tuple[list[tuple[int, int, int, bool]], NDArray[np.int64]]:
        """Lives of all components: replacements (day, machine, component, failed) and days left to failure.

        Days left has shape (machines, components, days); it counts the true life, which no rule cut short yet.
        """
        seed = self.company.config.seed
        replaced: list[tuple[int, int, int, bool]] = []
        remaining = np.zeros((len(self.machine_ids), len(COMPONENTS), days), dtype=np.int64)
        for m in range(len(self.machine_ids)):
            for c, component in enumerate(COMPONENTS):
                key = int(self.machine_keys[m])
                # The first part is already in use when the log begins.
                start = -int(REPLACE_AT_DAYS * 0.9 * float(streams.uniform(seed, "first part", key, c)[0]))
                number = 0
                while start < days:
                    u = float(streams.uniform(seed, "life", key, c, number)[0])
                    life = max(5, int(component.life_days * (-np.log(u)) ** (1 / 3.5)))
                    end = start + min(life, REPLACE_AT_DAYS)
                    if end < 0:  # Already gone: the log begins with its successor.
                        start, number = end, number + 1
                        continue
                    span = slice(max(start, 0), min(end, days))
                    remaining[m, c, span] = start + life - np.arange(span.start, span.stop)
                    if end < days:
                        replaced.append((end, m, c, life <= REPLACE_AT_DAYS))
                    start, number = end, number + 1
        return sorted(replaced), remaining

    def _moment(self, purpose: str, offset: int, *keys: int) -> datetime:
        u = float(streams.uniform(self.company.config.seed, purpose, self._days[offset].toordinal(), *keys)[0])
        return datetime.combine(self._days[offset], time(6)) + timedelta(minutes=int(u * MINUTES_PER_DAY))

    def _replacements_frame(self, replaced: list[tuple[int, int, int, bool]]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "replaced_at": _utc([self._moment("replaced", day, m, c) for day, m, c, _ in replaced]),
                "machine_id": pl.Series([self.machine_ids[m] for _, m, _, _ in replaced], dtype=pl.String),
                "component": pl.Series([COMPONENTS[c].name for _, _, c, _ in replaced], dtype=pl.String),
                "cause": pl.Series(["failure" if failed else "planned" for *_, failed in replaced], dtype=pl.String),
            }
        ).sort("replaced_at", "machine_id", "component")

    def _sensors(self, remaining: NDArray[np.int64]) -> Iterator[TableFile]:
        """`telemetry`, which shows wear in the last fortnight of a part, and `machine_errors`, which grow with it."""
        seed = self.company.config.seed
        machines = len(self.machine_ids)
        ordinals = np.array([day.toordinal() for day in self._days])
        keys = self.machine_keys[:, None, None, None]
        sensor = np.arange(len(COMPONENTS))[None, :, None, None]
        hour = np.arange(READINGS_PER_DAY)[None, None, None, :]
        luck = streams.normal(seed, "reading", keys, sensor, ordinals[None, None, :, None], hour)
        own = streams.normal(seed, "machine's normal", keys, sensor)
        normal = np.array([c.normal for c in COMPONENTS])[None, :, None, None]
        noise = np.array([c.noise for c in COMPONENTS])[None, :, None, None]
        rise = np.array([c.rise for c in COMPONENTS])[None, :, None, None]
        worn = np.clip(1.0 - remaining / 14.0, 0.0, 1.0)[..., None] ** 1.5
        value = np.round(normal + noise * (luck + 0.8 * own) + rise * worn, 3)  # (machines, sensors, days, readings)
        names = pl.Series([c.sensor for c in COMPONENTS])
        months = np.array([f"{day:%Y-%m}" for day in self._days])
        for month in dict.fromkeys(months):
            picked = np.flatnonzero(months == month)
            part = np.moveaxis(value[:, :, picked, :], (2, 3), (0, 1))  # (days, readings, machines, sensors)
            stamps = np.array([self._days[k] for k in picked], dtype="datetime64[us]")[:, None] + (
                np.arange(READINGS_PER_DAY) * (24 // READINGS_PER_DAY)
            ).astype("timedelta64[h]")
            per_stamp = machines * len(COMPONENTS)
            index = np.tile(np.arange(per_stamp), stamps.size)
            frame = pl.DataFrame(
                {
                    "measured_at": _utc(np.repeat(stamps.ravel(), per_stamp)),
                    "machine_id": pl.Series(self.machine_ids).gather(index // len(COMPONENTS)),
                    "sensor": names.gather(index % len(COMPONENTS)),
                    "value": part.ravel(),
                }
            )
            yield "manufacturing.telemetry", f"telemetry-{month}", frame
        ordinal_keys = ordinals[None, None, :]
        u = streams.uniform(
            seed, "error", self.machine_keys[:, None, None], np.arange(len(COMPONENTS))[None, :, None], ordinal_keys
        )
        chance = 0.006 + 0.35 * np.clip(1.0 - remaining / 8.0, 0.0, 1.0)
        machine, part_number, offset = np.nonzero(u < chance)
        errors = pl.DataFrame(
            {
                "occurred_at": _utc(
                    [
                        self._moment("error time", int(k), int(m), int(c))
                        for m, c, k in zip(machine, part_number, offset, strict=True)
                    ]
                ),
                "machine_id": pl.Series(self.machine_ids).gather(machine),
                "error_code": pl.Series([f"E{10 * (c + 1):03d}" for c in part_number], dtype=pl.String),
            }
        ).sort("occurred_at", "machine_id", "error_code")
        yield "manufacturing.machine_errors", f"errors-{self.company.config.as_of}", errors.unique(maintain_order=True)

    def _quality(self, remaining: NDArray[np.int64]) -> Iterator[TableFile]:
        """`inspections` and `measurements` of the last weeks: worn machines make more defects."""
        company, seed = self.company, self.company.config.seed
        begin = max(0, len(self._days) - INSPECTED_DAYS)
        ordinals = np.array([day.toordinal() for day in self._days[begin:]])
        offset, machine, unit = (index.ravel() for index in np.indices((len(ordinals), self.makers, UNITS_INSPECTED)))
        keys = self.machine_keys[machine]
        weight = streams.normal(seed, "weight", ordinals[offset], keys, unit)
        seal = streams.normal(seed, "seal", ordinals[offset], keys, unit)
        worn = np.clip(1.0 - remaining[machine, :, begin + offset].min(axis=1) / 14.0, 0.0, 1.0)
        weight, seal = weight - 0.6 * worn, seal - 1.2 * worn
        luck = streams.uniform(seed, "defect", ordinals[offset], keys, unit)
        defect = np.select([seal < -2.1, weight < -2.3, luck < 0.008], _DEFECTS, "")
        made_by = [np.flatnonzero(self.primary == m) for m in range(self.makers)]
        product = [
            company.product_ids[made_by[m][(o + u) % len(made_by[m])]]
            for o, m, u in zip(offset, machine, unit, strict=True)
        ]
        days = np.array(self._days[begin:], dtype="datetime64[us]")
        stamps = days[offset] + (6 * 60 + 100 * unit + machine % 60).astype("timedelta64[m]")
        unit_id = [
            f"U-{self._days[begin + o]:%Y%m%d}-{self.machine_ids[m]}-{u + 1}"
            for o, m, u in zip(offset, machine, unit, strict=True)
        ]
        frame = pl.DataFrame(
            {
                "unit_id": unit_id,
                "inspected_at": _utc(stamps),
                "machine_id": pl.Series(self.machine_ids).gather(machine),
                "product_id": product,
                "defect": pl.Series([str(d) or None for d in defect], dtype=pl.String),
            }
        )
        yield "manufacturing.inspections", f"inspections-{company.config.as_of}", frame
        features = pl.DataFrame(
            {"unit_id": unit_id, "weight": np.round(500 + 4 * weight, 2), "seal_strength": np.round(30 + 3 * seal, 2)}
        )
        measurements = features.unpivot(index="unit_id", variable_name="feature", value_name="value").sort(
            "unit_id", "feature"
        )
        yield "manufacturing.measurements", f"measurements-{company.config.as_of}", measurements


@dataclass
class Past:
    """What happened in the plant under its own planner.

    Attributes:
        floor: The state in which it ends.
        planner: The planner with what it has learnt.
        days: What happened.
        counts: Stock of products and components at each opening.
        receipts: Components ordered: day of arrival, component, units.
        orders: Every order as it stands at the end, by id.
    """

    floor: ShopFloor
    planner: PlantPlanner
    days: list[FloorDay] = field(default_factory=list)
    counts: list[tuple[date, Floats, Floats]] = field(default_factory=list)
    receipts: list[tuple[date, int, float]] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)


def _component_costs_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "component": [c.name for c in COMPONENTS],
            "planned_cost": [c.planned_cost for c in COMPONENTS],
            "failure_cost": [c.failure_cost for c in COMPONENTS],
            "planned_minutes": [c.planned_minutes for c in COMPONENTS],
            "failure_minutes": [c.failure_minutes for c in COMPONENTS],
        }
    )


def _utc(stamps: list[datetime] | np.ndarray) -> pl.Series:
    return pl.Series(stamps, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC")
