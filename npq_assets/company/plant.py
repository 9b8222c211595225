"""The plant: machines that make what the stores sell, wear out, break down, and are measured.

It runs under a naive rule: each day every machine makes what has the fewest days of stock left, and components are
replaced at a fixed age. The stores do not wait for the plant yet: what it cannot ship is bought in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company import streams
from npq_assets.company.config import FAMILIES
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company

TableFile = tuple[str, str, pl.DataFrame]
Floats = NDArray[np.float64]

MINUTES_PER_DAY = 960.0
PRODUCTS_PER_MACHINE = 8
# Components are replaced at this age unless they failed before: the naive fixed interval.
REPLACE_AT_DAYS = 120
INSPECTED_DAYS = 90
UNITS_INSPECTED = 8
READINGS_PER_DAY = 4

# Name, unit cost, family of machines that consume it, units per unit of product.
_MATERIALS: tuple[tuple[str, float, str, float], ...] = (
    ("Bottle", 0.08, "bottling", 1.0),
    ("Sugar (kg)", 0.60, "bottling", 0.09),
    ("Potatoes (kg)", 0.45, "frying", 0.8),
    ("Flour (kg)", 0.50, "baking", 0.4),
    ("Milk (l)", 0.42, "filling", 0.9),
    ("Cream (l)", 1.90, "freezing", 0.3),
    ("Carton", 0.03, "packing", 0.1),
    ("Label", 0.01, "packing", 1.0),
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

    Attributes:
        company: Whose plant it is.
        machine_ids: Machines; each line's first, then packing.
    """

    def __init__(self, company: Company) -> None:
        self.company = company
        self._days: list[date] = []
        self._ordered: list[Floats] = []
        self._lay_out()

    def _lay_out(self) -> None:
        company = self.company
        lines = list(dict.fromkeys(f.line for f in FAMILIES))
        line_of_product = np.array([lines.index(FAMILIES[f].line) for f in company.product_family])
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
        self._makers = len(self.machine_ids)
        for k in range(-(-self._makers // 4)):
            self.machine_ids.append(f"M-PACKING-{k + 1:02d}")
            self.machine_line.append("packing")
        seed = company.config.seed
        self.machine_keys = streams.name_keys(self.machine_ids)
        flow = company.base_demand.sum(axis=0)
        load = np.bincount(self.primary, weights=flow, minlength=self._makers)
        relative = np.exp(0.2 * streams.normal(seed, "run time", company.product_keys))
        self.minutes_per_unit: Floats = np.round(MINUTES_PER_DAY * 0.62 / load[self.primary] * relative, 5)
        self.setup_minutes: Floats = 15.0 + np.floor(30.0 * streams.uniform(seed, "setup time", company.product_keys))
        self.setup_cost: Floats = np.round(30.0 + 90.0 * streams.uniform(seed, "setup cost", company.product_keys))
        self._flow = flow

    def observe(self, month: Sequence[StoreDay]) -> None:
        """Notes what the stores ordered on each day, which the plant has to make."""
        for day in month:
            self._days.append(day.day)
            self._ordered.append(day.ordered.sum(axis=0).astype(np.float64))

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
        yield "manufacturing.machines", "machines", self._machines_frame()
        yield "manufacturing.routings", "routings", self._routings_frame()
        yield "manufacturing.bills_of_material", "bills-of-material", self._materials_frame()
        yield "manufacturing.component_costs", "component-costs", _component_costs_frame()
        yield "manufacturing.process_settings", "process-settings", self._settings_frame()
        if not self._days:
            return
        yield "manufacturing.customer_orders", f"customer-orders-{self.company.config.as_of}", self._orders_frame()
        replaced, remaining = self._wear()
        replacements = self._replacements_frame(replaced)
        yield "manufacturing.component_replacements", f"replacements-{self.company.config.as_of}", replacements
        yield from self._sensors(remaining)
        yield from self._production(replaced)
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
                "overtime_minutes_per_day": [240.0] * count,
                "overtime_cost_per_minute": np.round(
                    1.6 + 0.8 * streams.uniform(seed, "overtime", self.machine_keys), 2
                ),
            }
        )

    def _routings_frame(self) -> pl.DataFrame:
        rows = []
        packers = len(self.machine_ids) - self._makers
        for p, product in enumerate(self.company.product_ids):
            run, setup, cost = self.minutes_per_unit[p], self.setup_minutes[p], self.setup_cost[p]
            rows.append((product, 1, self.machine_ids[self.primary[p]], run, setup, cost))
            if self.alternative[p] >= 0:
                slow = round(float(run * 1.15), 5)
                rows.append((product, 1, self.machine_ids[self.alternative[p]], slow, setup, cost))
            rows.append(
                (product, 2, self.machine_ids[self._makers + p % packers], round(float(run * 0.2), 5), 5.0, 5.0)
            )
        columns = ["product_id", "operation", "machine_id", "minutes_per_unit", "setup_minutes", "setup_cost"]
        return pl.DataFrame(rows, schema=columns, orient="row")

    def _materials_frame(self) -> pl.DataFrame:
        rows = []
        for p, product in enumerate(self.company.product_ids):
            line = FAMILIES[self.company.product_family[p]].line
            for i, (_, _, user, quantity) in enumerate(_MATERIALS):
                if user in (line, "packing"):
                    rows.append((product, f"R{i + 1:02d}", quantity))
        return pl.DataFrame(rows, schema=["product_id", "component_id", "quantity"], orient="row")

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

    def _orders_frame(self) -> pl.DataFrame:
        """Weekly orders of the warehouses for what the stores took, due a week later; the last ones are still open."""
        company = self.company
        frames = []
        for k, day in enumerate(self._days):
            if day.weekday() != 3 or k < 6:
                continue
            quantity = np.sum(self._ordered[k - 6 : k + 1], axis=0)
            wanted = np.flatnonzero(quantity > 0)
            frames.append(
                pl.DataFrame(
                    {
                        "order_id": [f"CO-{day:%Y%m%d}-{company.product_ids[p]}" for p in wanted],
                        "product_id": [company.product_ids[p] for p in wanted],
                        "quantity": quantity[wanted],
                        "ordered_on": pl.Series([day] * len(wanted), dtype=pl.Date),
                        "due_on": pl.Series([day + timedelta(days=7)] * len(wanted), dtype=pl.Date),
                        "late_cost_per_day": np.round(0.02 * quantity[wanted] * company.unit_cost[wanted], 2),
                    }
                )
            )
        return pl.concat(frames) if frames else pl.DataFrame()

    def _wear(self) -> tuple[list[tuple[int, int, int, bool]], NDArray[np.int64]]:
        """Lives of all components: replacements (day, machine, component, failed) and days left to failure.

        Days left has shape (machines, components, days); it counts the true life, which no rule cut short yet.
        """
        seed, days = self.company.config.seed, len(self._days)
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

    def _production(self, replaced: list[tuple[int, int, int, bool]]) -> Iterator[TableFile]:
        """`production_log` and `plant_stock` under the naive rule."""
        company, seed = self.company, self.company.config.seed
        down = np.zeros((len(self._days), len(self.machine_ids)))
        for offset, m, c, failed in replaced:
            down[offset, m] += COMPONENTS[c].failure_minutes if failed else COMPONENTS[c].planned_minutes
        down = np.minimum(down, MINUTES_PER_DAY)
        stock = np.ceil(8.0 * self._flow)
        flow = self._flow.copy()
        set_up = np.full(self._makers, -1, dtype=np.int64)
        mine = [np.flatnonzero(self.primary == m) for m in range(self._makers)]
        scrap_rate = 0.008 + 0.02 * streams.uniform(seed, "scrap rate", self.machine_keys)
        rows: list[tuple[date, str, str, float, float, float, float, float, float]] = []
        counts: list[tuple[date, Floats]] = []
        for k, day in enumerate(self._days):
            if day.weekday() == 0:
                counts.append((day, stock.copy()))
            flow = 0.95 * flow + 0.05 * self._ordered[k]
            stock = np.maximum(stock - self._ordered[k], 0.0)
            made = np.zeros_like(stock)
            for m, machine in enumerate(self.machine_ids[: self._makers]):
                standing = float(down[k, m])
                minutes = MINUTES_PER_DAY - standing
                cover = stock[mine[m]] / np.maximum(flow[mine[m]], 1e-6)
                for place in np.argsort(cover, kind="stable")[:3]:
                    p = int(mine[m][place])
                    setup = 0.0 if set_up[m] == p else float(self.setup_minutes[p])
                    room = (minutes - setup) / self.minutes_per_unit[p]
                    units = float(np.floor(min((12.0 - cover[place]) * flow[p], room)))
                    if cover[place] > 9.0 or minutes < 60.0 or units < 1:
                        break
                    luck = float(streams.uniform(seed, "scrap", int(self.machine_keys[m]), day.toordinal(), p)[0])
                    scrap = float(np.floor(units * scrap_rate[m] * 2.0 * luck + 0.5))
                    run = round(units * float(self.minutes_per_unit[p]), 2)
                    energy = round(0.75 * run + 4.0 + 0.3 * setup, 2)
                    product = company.product_ids[p]
                    rows.append((day, machine, product, units - scrap, scrap, run, setup, standing, energy))
                    # The standstill is logged once, with the first product of the day.
                    standing = 0.0
                    minutes -= run + setup
                    set_up[m] = p
                    made[p] += units - scrap
            stock += made
        columns = ["produced_on", "machine_id", "product_id", "good_quantity", "scrap_quantity", "run_minutes"]
        log = pl.DataFrame(rows, schema=[*columns, "setup_minutes", "down_minutes", "energy_kwh"], orient="row")
        for year in dict.fromkeys(day.year for day in self._days):
            yield (
                "manufacturing.production_log",
                f"production-{year}",
                log.filter(pl.col("produced_on").dt.year() == year),
            )
        counts.append((company.config.as_of, stock))
        products = pl.concat([pl.Series(company.product_ids), self.components_frame()["product_id"]])
        material = 500.0 + np.floor(4000.0 * streams.uniform(seed, "material", np.arange(len(_MATERIALS))))
        frames = [
            pl.DataFrame(
                {
                    "counted_on": pl.Series([day] * len(products), dtype=pl.Date),
                    "product_id": products,
                    "on_hand": np.concatenate([count, material]),
                }
            )
            for day, count in counts
        ]
        yield "manufacturing.plant_stock", f"plant-stock-{company.config.as_of}", pl.concat(frames)

    def _quality(self, remaining: NDArray[np.int64]) -> Iterator[TableFile]:
        """`inspections` and `measurements` of the last weeks: worn machines make more defects."""
        company, seed = self.company, self.company.config.seed
        begin = max(0, len(self._days) - INSPECTED_DAYS)
        ordinals = np.array([day.toordinal() for day in self._days[begin:]])
        offset, machine, unit = (index.ravel() for index in np.indices((len(ordinals), self._makers, UNITS_INSPECTED)))
        keys = self.machine_keys[machine]
        weight = streams.normal(seed, "weight", ordinals[offset], keys, unit)
        seal = streams.normal(seed, "seal", ordinals[offset], keys, unit)
        worn = np.clip(1.0 - remaining[machine, :, begin + offset].min(axis=1) / 14.0, 0.0, 1.0)
        weight, seal = weight - 0.6 * worn, seal - 1.2 * worn
        luck = streams.uniform(seed, "defect", ordinals[offset], keys, unit)
        defect = np.select([seal < -2.1, weight < -2.3, luck < 0.008], _DEFECTS, "")
        made_by = [np.flatnonzero(self.primary == m) for m in range(self._makers)]
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
