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
from npq_assets.company.wear import Replaced, Wear
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
MEASURED_DAYS = 240
# Every so many units measured, one is inspected: the fixed inspection.
INSPECTED_EVERY = 2
INSPECTION_COST = 1.5
MISS_COST = 40.0
# Stock is counted every day for this long before the as-of day, on Mondays before that.
DAILY_COUNT_DAYS = 56
UNITS_MEASURED = 8
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
    Component("bearing", 120.0, 350.0, 1900.0, 60.0, 300.0, "vibration", 2.0, 0.25, 3.0),
    Component("pump", 140.0, 600.0, 2600.0, 90.0, 360.0, "pressure", 6.0, 0.20, -2.0),
    Component("heater", 130.0, 450.0, 1500.0, 45.0, 240.0, "temperature", 74.0, 1.2, 12.0),
)


@dataclass(frozen=True)
class Setting:
    """A setting of a maker: its limits, the cost of a change, and the signs that the engineers are sure of."""

    name: str
    low: float
    high: float
    change_cost: float
    ramp: float
    scrap_sign: int
    energy_sign: int
    minutes_sign: int

    def scaled(self, value: float) -> float:
        """-1 at the lower limit, 1 at the upper."""
        return (value - self.low) / (self.high - self.low) * 2.0 - 1.0


SETTINGS: tuple[Setting, ...] = (
    Setting("speed", 60.0, 120.0, 0.5, 10.0, 1, 0, -1),
    Setting("temperature", 65.0, 90.0, 1.0, 4.0, 0, 1, 0),
    Setting("pressure", 4.0, 8.0, 4.0, 0.6, 0, 1, 0),
)
# A value holds this many days in the log, and lies within this share of the range around the machine's usual one.
_HELD_DAYS = (12, 28)
_TRIED_SHARE = 0.18
# The log ends with the usual values in force for so many days.
_USUAL_DAYS = 14
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

    def offset(self, day: date) -> int:
        """Days since the first one observed."""
        return (day - self._days[0]).days if self._days else 0

    def short_stops(self, m: int, day: date) -> float:
        """Unplanned standstill of a machine on a day beside repairs (minutes)."""
        luck = float(streams.uniform(self.seed, "short stop", int(self.machine_keys[m]), day.toordinal())[0])
        return 0.0 if luck < 0.6 else round(150.0 * (luck - 0.6), 1)

    def standstill(self, day: date, replaced: Sequence[Replaced]) -> tuple[Floats, Floats, Floats]:
        """Working time that planned replacements take, that failures take (minutes), and what all of them cost (M each)."""
        count = len(self.machine_ids)
        planned, failed, cost = np.zeros(count), np.zeros(count), np.zeros(count)
        for part in replaced:
            component = COMPONENTS[part.component]
            cost[part.machine] += component.failure_cost if part.failed else component.planned_cost
            (failed if part.failed else planned)[part.machine] += (
                component.failure_minutes if part.failed else component.planned_minutes
            )
        idle = np.array([self.maintenance_minutes(m, day) for m in range(count)])
        return np.maximum(planned - idle, 0.0), failed, cost

    def maintenance_minutes(self, m: int, day: date) -> float:
        """Minutes outside working time in which the crew may work on a machine: while its shift is given to service."""
        special = self._special(m, day)
        return MINUTES_PER_DAY - special[0] if special is not None and special[2] == "service" else 0.0

    def condition(self, m: int, day: date, worn: float, settings: Floats) -> tuple[float, float, float]:
        """How much slower than standard a machine runs, its share of scrap and its power (kW), by wear and settings."""
        luck = float(streams.normal(self.seed, "pace", int(self.machine_keys[m]), day.toordinal())[0])
        pace, scrap, power = self.response(m, settings)
        slow = 1.02 + 0.02 * luck + WORN_SLOWER * worn
        return (
            max(slow, 0.95) * pace,
            float(self.scrap_rate[m]) * (1.0 + (WORN_SCRAP - 1.0) * worn) * scrap,
            float(self.power_kw[m]) * power,
        )

    def response(self, m: int, settings: Floats) -> tuple[float, float, float]:
        """Factors on time, scrap and power that a maker's settings make; what the plant's engineers do not know exactly."""
        if m >= self.makers:
            return 1.0, 1.0, 1.0
        u, heat, force = (setting.scaled(float(v)) for setting, v in zip(SETTINGS, settings, strict=True))
        best = 0.5 * (streams.uniform(self.seed, "best setting", int(self.machine_keys[m]), np.arange(2)) - 0.5)
        pace = 1.0 - 0.05 * u
        scrap = 0.6 + 0.8 * (heat - best[0]) ** 2 + 0.5 * (force - best[1]) ** 2 + 0.12 * (1.0 + u) ** 2
        power = 1.0 + 0.20 * heat + 0.16 * force + 0.05 * u
        return pace, float(scrap), float(power)

    @cached_property
    def usual_settings(self) -> Floats:
        """The values at which every machine usually runs (M, settings)."""
        share = streams.uniform(self.seed, "setting", self.machine_keys[:, None], np.arange(len(SETTINGS))[None, :])
        low, width = np.array([s.low for s in SETTINGS]), np.array([s.high - s.low for s in SETTINGS])
        return np.asarray(np.round(low + (0.2 + 0.6 * share) * width, 2), float)

    @cached_property
    def setting_history(self) -> list[tuple[int, int, int, float]]:
        """Day, machine, setting and new value of every change in the log: operators try what they think is better."""
        last = len(self._days) - _USUAL_DAYS
        found: list[tuple[int, int, int, float]] = []
        for m in range(self.makers):
            for k, setting in enumerate(SETTINGS):
                day, number, usual = 0, 0, float(self.usual_settings[m, k])
                while day < last:
                    hold, way = streams.two_uniforms(self.seed, "tried", int(self.machine_keys[m]), k, number)
                    value = usual + _TRIED_SHARE * (setting.high - setting.low) * (2.0 * float(way[0]) - 1.0)
                    value = round(min(max(value, setting.low), setting.high), 2)
                    found.append((day, m, k, value if number else usual))
                    low, high = _HELD_DAYS
                    day, number = day + low + int((high - low + 1) * float(hold[0])), number + 1
                found.append((max(last, 0), m, k, usual))
        return sorted(found)

    def energy_price(self, day: date) -> float:
        """Mean price of energy on a day (money per kWh)."""
        daily = 1.0 + 0.25 * float(streams.normal(self.seed, "energy price", day.toordinal())[0])
        return ENERGY_PRICE * max(daily, 0.3)

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
        past = self.past()
        replaced = [(k, part) for k, day in enumerate(past.days) for part in day.replaced]
        yield "manufacturing.component_replacements", f"replacements-{config.as_of}", self.replacements_frame(replaced)
        yield "manufacturing.setting_changes", f"setting-changes-{config.as_of}", self._changes_frame()
        yield "manufacturing.tolerances", "tolerances", _tolerances_frame()
        yield "manufacturing.quality_costs", "quality-costs", _quality_costs_frame()
        months = np.array([f"{day:%Y-%m}" for day in self._days])
        for month in dict.fromkeys(months):
            picked = np.flatnonzero(months == month)
            frame = self.telemetry_frame(picked, past.worn[picked])
            yield "manufacturing.telemetry", f"telemetry-{month}", frame
        errors = self.errors_frame(np.arange(len(self._days)), past.worn)
        yield "manufacturing.machine_errors", f"errors-{config.as_of}", errors
        yield from self._history()
        begin = max(0, len(self._days) - MEASURED_DAYS)
        units = pl.concat([self.units_frame(k, past.worn[k]) for k in range(begin, len(self._days))])
        inspected = units.filter(pl.col("number") % INSPECTED_EVERY == 0)
        # What was measured on the last day is inspected on the next.
        inspected = inspected.filter(pl.col("measured_at") < pl.lit(self._days[-1]).cast(pl.Datetime("us", "UTC")))
        yield "manufacturing.inspections", f"inspections-{config.as_of}", inspections_frame(inspected)
        yield "manufacturing.measurements", f"measurements-{config.as_of}", measurements_frame(units)

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
                    rows.append((machine, day, *special, self.maintenance_minutes(m, day)))
        columns = ["machine_id", "calendar_on", "minutes", "overtime_minutes", "reason", "maintenance_minutes"]
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
        rows = [
            (self.machine_ids[m], s.name, s.low, s.high, float(self.usual_settings[m, k]), s.change_cost, s.ramp,
             s.scrap_sign, s.energy_sign, s.minutes_sign)
            for m in range(self.makers)
            for k, s in enumerate(SETTINGS)
        ]  # fmt: skip
        columns = [
            "machine_id", "setting", "low", "high", "current", "cost_per_unit_change", "ramp_limit", "scrap_sign",
            "energy_sign", "minutes_sign",
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=columns, orient="row")

    def _changes_frame(self) -> pl.DataFrame:
        rows = [
            (self.machine_ids[m], SETTINGS[k].name, datetime.combine(self._days[day], time(0)), value)
            for day, m, k, value in self.setting_history
        ]
        return changes_frame([(*row, None) for row in rows])

    # What happened ----------------------------------------------------------------------------------------------------

    def past(self) -> Past:
        """The plant's history under its own planner, and the state in which it ends."""
        if self._past is None:
            self._past = self._live_past()
        return self._past

    def _live_past(self) -> Past:
        components = np.ceil(self.component_target * 0.8)
        wear = Wear(self.seed, self.machine_keys, np.array([c.life_days for c in COMPONENTS]), REPLACE_AT_DAYS)
        floor = ShopFloor(
            self, np.ceil(5.0 * self._flow), components, np.full(len(self.machine_ids), -1, dtype=np.int64), wear,
            self.usual_settings.copy(),
        )  # fmt: skip
        planner = PlantPlanner(self, self._flow)
        past = Past(floor, planner)
        changes: dict[int, list[tuple[int, int, float]]] = {}
        for k, m, setting, value in self.setting_history:
            changes.setdefault(k, []).append((m, setting, value))
        worn = []
        for k, day in enumerate(self._days):
            past.counts.append((day, floor.stock.copy(), floor.components.copy()))
            past.receipts += floor.buy(day)
            for m, setting, value in changes.get(k, ()):
                floor.settings[m, setting] = value
            lots, overtime = planner.lots(day, floor)
            due = [(int(m), int(c)) for m, c in np.argwhere(wear.age(k) >= REPLACE_AT_DAYS)]
            happened = floor.live(day, lots, overtime, [part for part in due if wear.remaining(k)[part] > 0])
            worn.append(wear.worn(k))
            past.days.append(happened)
            past.orders.update({order.order_id: order for order in happened.changed})
            if k >= 6:
                new = self.orders_of(day, self._ordered[k - 6 : k + 1])
                floor.accept(new)
                planner.observe(new)
                past.orders.update({order.order_id: order for order in new})
        past.worn = np.array(worn).reshape(len(self._days), len(self.machine_ids), len(COMPONENTS))
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

    def _moment(self, purpose: str, day: date, *keys: int) -> datetime:
        u = float(streams.uniform(self.seed, purpose, day.toordinal(), *keys)[0])
        return datetime.combine(day, time(6)) + timedelta(minutes=int(u * MINUTES_PER_DAY))

    def _day(self, offset: int) -> date:
        return self._days[0] + timedelta(days=int(offset))

    def replacements_frame(self, replaced: Sequence[tuple[int, Replaced]]) -> pl.DataFrame:
        """`manufacturing.component_replacements` of parts with the day on which they were replaced."""
        moments = [self._moment("replaced", self._day(k), r.machine, r.component, int(r.failed)) for k, r in replaced]
        return pl.DataFrame(
            {
                "replaced_at": _utc(moments),
                "machine_id": pl.Series([self.machine_ids[r.machine] for _, r in replaced], dtype=pl.String),
                "component": pl.Series([COMPONENTS[r.component].name for _, r in replaced], dtype=pl.String),
                "cause": pl.Series(["failure" if r.failed else "planned" for _, r in replaced], dtype=pl.String),
            }
        ).sort("replaced_at", "machine_id", "component")

    def telemetry_frame(self, offsets: NDArray[np.int64], worn: Floats) -> pl.DataFrame:
        """`manufacturing.telemetry` of days, which shows the wear of parts (days, machines, components)."""
        seed, machines = self.seed, len(self.machine_ids)
        ordinals = np.array([self._day(k).toordinal() for k in offsets])
        keys = self.machine_keys[None, None, :, None]
        sensor = np.arange(len(COMPONENTS))[None, None, None, :]
        hour = np.arange(READINGS_PER_DAY)[None, :, None, None]
        luck = streams.normal(seed, "reading", keys, sensor, ordinals[:, None, None, None], hour)
        own = streams.normal(seed, "machine's normal", keys, sensor)
        normal, noise, rise = (np.array([getattr(c, name) for c in COMPONENTS]) for name in ("normal", "noise", "rise"))
        value = np.round(normal + noise * (luck + 0.8 * own) + rise * worn[:, None] ** 1.5, 3)
        stamps = np.array([self._day(k) for k in offsets], dtype="datetime64[us]")[:, None] + (
            np.arange(READINGS_PER_DAY) * (24 // READINGS_PER_DAY)
        ).astype("timedelta64[h]")
        per_stamp = machines * len(COMPONENTS)
        index = np.tile(np.arange(per_stamp), stamps.size)
        return pl.DataFrame(
            {
                "measured_at": _utc(np.repeat(stamps.ravel(), per_stamp)),
                "machine_id": pl.Series(self.machine_ids).gather(index // len(COMPONENTS)),
                "sensor": pl.Series([c.sensor for c in COMPONENTS]).gather(index % len(COMPONENTS)),
                "value": value.ravel(),
            }
        )

    def errors_frame(self, offsets: NDArray[np.int64], worn: Floats) -> pl.DataFrame:
        """`manufacturing.machine_errors` of days, which grow in the last days of a part (worn: days, machines, components)."""
        ordinals = np.array([self._day(k).toordinal() for k in offsets])
        u = streams.uniform(
            self.seed, "error", self.machine_keys[None, :, None], np.arange(len(COMPONENTS))[None, None, :],
            ordinals[:, None, None],
        )  # fmt: skip
        day, machine, part = np.nonzero(u < 0.006 + 0.35 * np.clip(2.0 * worn - 1.0, 0.0, 1.0))
        moments = [
            self._moment("error time", self._day(offsets[k]), int(m), int(c))
            for k, m, c in zip(day, machine, part, strict=True)
        ]
        frame = pl.DataFrame(
            {
                "occurred_at": _utc(moments),
                "machine_id": pl.Series(self.machine_ids).gather(machine),
                "error_code": pl.Series([f"E{10 * (c + 1):03d}" for c in part], dtype=pl.String),
            }
        )
        return frame.sort("occurred_at", "machine_id", "error_code").unique(maintain_order=True)

    def units_frame(self, offset: int, worn: Floats) -> pl.DataFrame:
        """Units measured on a day, with the defect that an inspection would find: worn machines make more of them.

        Returns:
            unit_id, number (1 … of the machine's day), measured_at, machine_id, product_id, weight, seal_strength, defect.
        """
        company, seed, day = self.company, self.seed, self._day(offset)
        machine, unit = (index.ravel() for index in np.indices((self.makers, UNITS_MEASURED)))
        keys, ordinal = self.machine_keys[machine], day.toordinal()
        weight = streams.normal(seed, "weight", ordinal, keys, unit)
        seal = streams.normal(seed, "seal", ordinal, keys, unit)
        # Scales drift until the next calibration, each with its own rhythm.
        phase = streams.uniform(seed, "calibrated", keys)
        drift = 0.7 * np.modf(ordinal / 90.0 + phase)[0] - 0.35
        tired = worn[machine].max(axis=1)
        weight, seal = weight + drift - 0.6 * tired, seal - 1.2 * tired
        luck = streams.uniform(seed, "defect", ordinal, keys, unit)
        defect = np.select([seal < -2.1, weight < -2.3, luck < 0.006], _DEFECTS, "")
        made_by = [np.flatnonzero(self.primary == m) for m in range(self.makers)]
        stamp = np.datetime64(day, "us") + (6 * 60 + 100 * unit + machine % 60).astype("timedelta64[m]")
        return pl.DataFrame(
            {
                "unit_id": [
                    f"U-{day:%Y%m%d}-{self.machine_ids[m]}-{u + 1}" for m, u in zip(machine, unit, strict=True)
                ],
                "number": unit + 1,
                "measured_at": _utc(stamp),
                "machine_id": pl.Series(self.machine_ids).gather(machine),
                "product_id": [
                    company.product_ids[made_by[m][(offset + u) % len(made_by[m])]]
                    for m, u in zip(machine, unit, strict=True)
                ],
                "weight": np.round(500 + 4 * weight, 2),
                "seal_strength": np.round(30 + 3 * seal, 2),
                "defect": pl.Series([str(d) or None for d in defect], dtype=pl.String),
            }
        )


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
    worn: Floats = field(default_factory=lambda: np.zeros((0, 0, 0)))


def inspections_frame(units: pl.DataFrame) -> pl.DataFrame:
    """`manufacturing.inspections` of units, on the day after they were measured."""
    return units.select(
        "unit_id",
        (pl.col("measured_at") + pl.duration(days=1)).alias("inspected_at"),
        "machine_id",
        "product_id",
        "defect",
    )


def measurements_frame(units: pl.DataFrame) -> pl.DataFrame:
    """`manufacturing.measurements` of units."""
    index = ["unit_id", "measured_at", "machine_id", "product_id"]
    long = units.select(*index, "weight", "seal_strength").unpivot(
        index=index, variable_name="feature", value_name="value"
    )
    columns = ("unit_id", "feature", "value", "measured_at", "machine_id", "product_id")
    return long.select(columns).sort("unit_id", "feature")


def changes_frame(rows: Sequence[tuple[str, str, datetime, float, str | None]]) -> pl.DataFrame:
    """`manufacturing.setting_changes`: machine, setting, moment, value, the decision that it acknowledges."""
    return pl.DataFrame(
        {
            "machine_id": pl.Series([r[0] for r in rows], dtype=pl.String),
            "setting": pl.Series([r[1] for r in rows], dtype=pl.String),
            "changed_at": _utc([r[2] for r in rows]),
            "value": pl.Series([r[3] for r in rows], dtype=pl.Float64),
            "decision_id": pl.Series([r[4] for r in rows], dtype=pl.String),
        }
    ).sort("machine_id", "setting", "changed_at")


def _tolerances_frame() -> pl.DataFrame:
    return pl.DataFrame(
        {"feature": ["weight", "seal_strength"], "lower": [490.8, 23.7], "upper": [510.0, None]},
        schema={"feature": pl.String, "lower": pl.Float64, "upper": pl.Float64},
    )


def _quality_costs_frame() -> pl.DataFrame:
    return pl.DataFrame({"inspection_cost": [INSPECTION_COST], "miss_cost": [MISS_COST]})


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
