"""What kind of company it is: its size, its dates, its families of products and the days on which its customers change.

Numbers drawn at random do not belong here (see `world`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta

# The history ends on a fixed day, so that a sample made today equals one made next year.
LAST_DAY = date(2025, 6, 30)
# Days lived before the first written day, so that shelves and planners have settled.
WARM_UP_DAYS = 70
# Offers, limits and events are known this many days ahead.
PLANNED_DAYS = 84


@dataclass(frozen=True)
class Family:
    """A family of products that sell alike.

    Attributes:
        name: As in `common.products`.
        supplier: Who replenishes it.
        line: The plant's kind of machine that makes it.
        price: Typical list price (money).
        margin: Share of the price that is not unit cost.
        holding_rate: Cost of keeping a unit one day, waste included, as a share of unit cost.
        elasticity: Uplift of a promotion is (1 - discount) ** -elasticity.
        annual: Amplitude of the year's wave.
        peak: Day of the year of its top.
        heat: Relative change of demand per degree above the season's normal.
        weekend: How much more (or less) than other families it sells on weekends.
        weight_kg: Typical weight of a unit.
    """

    name: str
    supplier: str
    line: str
    price: float
    margin: float
    holding_rate: float
    elasticity: float
    annual: float
    peak: int
    heat: float
    weekend: float
    weight_kg: float


FAMILIES: tuple[Family, ...] = (
    Family("soda", "SUP-DRINKS", "bottling", 1.8, 0.45, 0.045, 3.4, 0.25, 200, 0.018, 1.05, 1.5),
    Family("juice", "SUP-DRINKS", "bottling", 2.6, 0.42, 0.055, 3.0, 0.12, 190, 0.010, 1.0, 1.0),
    Family("snacks", "SUP-DRY", "frying", 2.2, 0.48, 0.040, 3.2, 0.10, 340, 0.0, 1.10, 0.2),
    Family("bakery", "SUP-FRESH", "baking", 3.1, 0.50, 0.110, 2.4, 0.06, 330, -0.004, 1.15, 0.5),
    Family("dairy", "SUP-FRESH", "filling", 1.4, 0.40, 0.080, 2.6, 0.05, 20, 0.0, 0.95, 1.0),
    Family("ice cream", "SUP-FROZEN", "freezing", 4.2, 0.46, 0.050, 3.0, 0.55, 196, 0.035, 1.15, 0.8),
    Family("ready meals", "SUP-FROZEN", "freezing", 5.5, 0.44, 0.060, 2.7, 0.15, 15, -0.006, 0.90, 0.5),
    Family("sauces", "SUP-DRY", "filling", 2.9, 0.47, 0.035, 2.8, 0.12, 175, 0.006, 1.0, 0.6),
)

# Share of the price taken off; offers of a fortnight keep to the first three.
OFFER_DEPTHS: tuple[float, ...] = (0.10, 0.15, 0.20, 0.25, 0.30)

# What suppliers can bring on a day, as a multiple of the families' mean daily flow at the season's top; None: no limit.
SUPPLIER_QUANTITY: dict[str, float | None] = {"SUP-DRINKS": 1.9, "SUP-FRESH": None, "SUP-DRY": None, "SUP-FROZEN": None}
SUPPLIER_SPEND: dict[str, float | None] = {"SUP-DRINKS": None, "SUP-FRESH": None, "SUP-DRY": None, "SUP-FROZEN": 2.1}
SUPPLIER_LEAD: dict[str, int] = {"SUP-DRINKS": 2, "SUP-FRESH": 1, "SUP-DRY": 3, "SUP-FROZEN": 2}

# Name, latitude and longitude of the middle: all within an hour's drive.
REGIONS: tuple[tuple[str, float, float], ...] = (
    ("north", 52.75, 13.40),
    ("coast", 52.55, 13.85),
    ("valley", 52.25, 13.45),
    ("hills", 52.45, 12.95),
)


@dataclass(frozen=True)
class EventKind:
    """An event that comes again under the same name.

    Attributes:
        name: As in `common.events`.
        effect: Factor of demand on the day, by family name; `*` for the others.
        eve: Factor of all families on the day before.
    """

    name: str
    effect: dict[str, float]
    eve: float = 1.0


PUBLIC_HOLIDAY = EventKind("Public holiday", {"*": 0.55, "bakery": 0.8, "ice cream": 0.9}, eve=1.45)
PAYDAY = EventKind("Payday weekend", {"*": 1.30, "ready meals": 1.45, "dairy": 1.12})
MATCH_DAY = EventKind("Match day", {"*": 1.05, "soda": 1.9, "snacks": 2.2, "ready meals": 1.5})
CITY_FAIR = EventKind("City fair", {"*": 1.15, "ice cream": 2.0, "soda": 1.6, "bakery": 1.5})
DISCOUNT_DAY = EventKind("Black Friday", {"*": 1.35, "snacks": 1.6})
BACK_TO_SCHOOL = EventKind("Back to school", {"*": 1.05, "snacks": 1.4, "juice": 1.6, "dairy": 1.2})

# Month and day of the holidays that fall on the same date each year.
FIXED_HOLIDAYS: tuple[tuple[int, int], ...] = (
    (1, 1),
    (1, 6),
    (5, 1),
    (7, 14),
    (8, 15),
    (10, 3),
    (11, 1),
    (12, 25),
    (12, 26),
)


@dataclass(frozen=True)
class CompanyConfig:
    """Size, dates and seed of a sample company.

    Attributes:
        scale: 1 is 10 stores x 40 products; the number of series grows in proportion.
        days: Days of history.
        seed: Seed of everything random.
        as_of: The day after the last day of history.
    """

    scale: float = 1.0
    days: int = 730
    seed: int = 0
    as_of: date = LAST_DAY + timedelta(days=1)

    @property
    def n_stores(self) -> int:
        """Number of stores: grows with the root of the scale, as the number of products does."""
        return max(2, round(10 * math.sqrt(self.scale)))

    @property
    def n_products(self) -> int:
        """Number of products sold."""
        return max(4, math.ceil(400 * self.scale / self.n_stores - 1e-9))

    @property
    def first_day(self) -> date:
        """First day of the written history."""
        return self.as_of - timedelta(days=self.days)
