"""The closed loop: the company lives on under npq's decisions and, with the same customers, under its own planner.

Only landing files go in and only decision files come out; nothing here is special to the run that decides. How a run
decides does not belong here: `decide` is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.company.config import PLANNED_DAYS
from npq_assets.company.demand import Demand
from npq_assets.company.history import Present, live
from npq_assets.company.landing import (
    LandingFolder,
    availability_frame,
    orders_frame,
    sales_frame,
    stock_frame,
    write_company,
)
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company
from npq_assets.errors import NpqError, RunError
from npq_assets.evaluation.statistics import Difference, paired_difference
from npq_assets.optimization.costs import InventoryCost
from npq_assets.settings import Home

Decide = Callable[[Home, date], None]
Log = Callable[[str], None]

# Kinds of cost in the order of the published contract; those below are simulated so far.
KINDS = ("stock", "lost_sales", "setups", "overtime", "lateness", "failures", "scrap", "energy", "kilometres", "offers")
SIMULATED_KINDS = ("stock", "lost_sales")
CONFIDENCE = 0.95


class NaivePolicy(Protocol):
    """Orders of the other world: what to order as of the day about to open, shape (S, P)."""

    def __call__(self, present: Present) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class SimulationResult:
    """What both worlds cost.

    Attributes:
        first_day: First day lived under the decisions.
        last_day: Last day lived.
        weeks: Weeks lived.
        seed: Seed of the company.
        costs: One row a day, site and kind: `day`, `site_id`, `kind`, `npq`, `naive` (money).
        service: One row a world: `world`, `demand`, `sold` (units), `fill_rate`.
    """

    first_day: date
    last_day: date
    weeks: int
    seed: int
    costs: pl.DataFrame
    service: pl.DataFrame

    def table(self) -> pl.DataFrame:
        """Cost of both worlds by kind, then in all: `kind`, `npq`, `naive`, `saving`, `saving_share`."""
        by_kind = self.costs.group_by("kind", maintain_order=True).agg(pl.col("npq", "naive").sum())
        total = by_kind.select(pl.lit("total").alias("kind"), pl.col("npq").sum(), pl.col("naive").sum())
        return pl.concat([by_kind, total]).with_columns(
            saving=pl.col("naive") - pl.col("npq"),
            saving_share=pl.when(pl.col("naive") > 0).then(1.0 - pl.col("npq") / pl.col("naive")),
        )

    def weekly(self) -> pl.DataFrame:
        """Cost of both worlds by week and kind: `week` (1, 2, …), `kind`, `npq`, `naive`."""
        week = ((pl.col("day") - pl.lit(self.first_day)).dt.total_days() // 7 + 1).alias("week")
        return self.costs.group_by(week, "kind", maintain_order=True).agg(pl.col("npq", "naive").sum())

    def difference(self) -> Difference:
        """Cost of npq minus cost of the naive world, paired and clustered by site; negative is a saving."""
        return paired_difference(self.costs["npq"], self.costs["naive"], self.costs["site_id"], CONFIDENCE)

    def as_json(self) -> dict[str, Any]:
        """The result as plain JSON: costs by kind in all and by week, the paired difference, the service."""
        kinds = {row["kind"]: {"npq": row["npq"], "naive": row["naive"]} for row in self.table().to_dicts()}
        total = kinds.pop("total")
        found = self.difference()
        weekly: dict[int, dict[str, Any]] = {}
        for row in self.weekly().to_dicts():
            week = weekly.setdefault(row["week"], {"week": row["week"], "costs": {}})
            week["costs"][row["kind"]] = {"npq": row["npq"], "naive": row["naive"]}
        return {
            "first_day": self.first_day.isoformat(),
            "last_day": self.last_day.isoformat(),
            "weeks": self.weeks,
            "seed": self.seed,
            "costs": kinds,
            "total": total,
            "saving": total["naive"] - total["npq"],
            "saving_share": 1.0 - found.ratio,
            "difference": asdict(found),
            "weekly": list(weekly.values()),
            "service": {
                row["world"]: {"demand": row["demand"], "sold": row["sold"], "fill_rate": row["fill_rate"]}
                for row in self.service.to_dicts()
            },
            "not_simulated": [kind for kind in KINDS if kind not in SIMULATED_KINDS],
        }

    def as_text(self) -> str:
        """The result as a table for people."""
        lines = [f"{'kind':<12}{'npq':>14}{'naive':>14}{'saving':>14}{'share':>9}"]
        for row in self.table().to_dicts():
            kind = row["kind"].replace("_", " ")
            share = "" if row["saving_share"] is None else f"{row['saving_share']:.1%}"
            lines.append(f"{kind:<12}{row['npq']:>14,.0f}{row['naive']:>14,.0f}{row['saving']:>14,.0f}{share:>9}")
        lines.append(f"{self.first_day} to {self.last_day}, npq minus naive, paired: {self.difference()}")
        fill = {row["world"]: row["fill_rate"] for row in self.service.to_dicts()}
        lines.append(f"demand served: npq {fill['npq']:.1%}, naive {fill['naive']:.1%}")
        absent = [kind for kind in KINDS if kind not in SIMULATED_KINDS]
        lines.append("not simulated yet: " + ", ".join(absent))
        return "\n".join(lines)


def planner_policy(present: Present) -> NDArray[np.int64]:
    """The company's own careful order-up-to rule, which also wrote its history."""
    return present.planner.orders(present.day, present.stores)


def simulate(
    home: Home,
    *,
    weeks: int = 4,
    seed: int = 0,
    domain: str | None = None,
    decide: Decide,
    log: Log = lambda line: None,
    scale: float = 1.0,
    days: int = 730,
    naive: NaivePolicy = planner_policy,
) -> SimulationResult:
    """Steps the sample company day by day under `decide` and, from the same state and luck, under the naive policy.

    Each day D: what happened before D opened lands in `home`; `decide(home, D)` writes
    `decisions/retail/replenishment_orders/as_of=D/`; the orders are placed on the real terms (lead times,
    packs, supplier limits); customers come. The naive world lives the same day.

    Args:
        home: An empty home; the company's landing files go into it.
        weeks: Weeks to live.
        seed: Seed of the company.
        domain: Whose decisions are simulated; None: all that can be (so far `retail`).
        decide: The product's run as of a day.
        log: Gets a line a day.
        scale: Size of the company.
        days: Days of history before the first decision.
        naive: The policy of the other world.

    Raises:
        NpqError: The home's landing folder is not empty, or the arguments are out of range.
        RunError: A day brought no usable decisions.
    """
    if weeks < 1:
        raise NpqError(f"weeks = {weeks} is out of range; give at least 1")
    if domain not in (None, "retail"):
        raise NpqError(f"domain {domain!r} is not simulated yet; give --domain retail or none")
    if home.landing.exists() and any(home.landing.rglob("*.*")):
        raise NpqError(f"{home.landing} already holds files; give simulate an empty home with --home")
    last = timedelta(days=7 * weeks)
    summary, ours, demand = write_company(
        home.landing, scale=scale, days=days, seed=seed, extra_days=7 * weeks + PLANNED_DAYS + 7
    )
    log(
        f"sample company: {summary.n_series} series, {summary.total_rows} rows landed, "
        f"first decision as of {summary.as_of}"
    )
    company = demand.company
    theirs = ours.copy()
    folder = LandingFolder(home.landing)
    books = _Books(company)
    while ours.day < summary.as_of + last:
        day = ours.day
        decide(home, day)
        ours_day = live(ours, demand, read_orders(home, company, day))
        theirs_day = live(theirs, demand, naive(theirs))
        books.enter(ours_day, theirs_day)
        land_day(folder, demand, ours_day, ours)
        log(books.line(day))
    return SimulationResult(
        first_day=summary.as_of,
        last_day=ours.day - timedelta(days=1),
        weeks=weeks,
        seed=seed,
        costs=books.costs(),
        service=books.service(),
    )


def land_day(folder: LandingFolder, demand: Demand, happened: StoreDay, present: Present) -> None:
    """Lands what is known when the day after `happened` opens; on Mondays also what has been planned further ahead."""
    company = demand.company
    day = happened.day
    folder.write("retail.sales", f"sales-{day}", sales_frame(company, demand, [happened]))
    folder.write("retail.availability", f"availability-{day}", availability_frame(company, [happened]))
    folder.write("retail.open_orders", f"open-orders-{day}", orders_frame(company, [happened]))
    folder.write("retail.stock", f"stock-{present.day}", stock_frame(company, present.day, present.stores.on_hand))
    if present.day.weekday() == 0:
        since = max(present.day - timedelta(days=7), company.config.as_of) + timedelta(days=PLANNED_DAYS)
        until = present.day + timedelta(days=PLANNED_DAYS - 1)
        folder.write("retail.offers", f"offers-{present.day}", company.offers_frame(since, until))
        folder.write(
            "retail.supplier_limits", f"supplier-limits-{present.day}", company.supplier_limits_frame(since, until)
        )
        if until.year > since.year:
            events = company.events_frame(date(until.year, 1, 1), date(until.year, 12, 31))
            folder.write("common.events", f"events-{until.year}", events)


def read_orders(home: Home, company: Company, day: date) -> NDArray[np.int64]:
    """The orders decided as of `day`, shape (S, P), before rounding to the terms.

    Raises:
        RunError: There is no decision file, or it lacks columns or names an unknown site or product.
    """
    path = home.decisions("retail", "replenishment_orders", day)
    files = sorted(path.parent.glob("*.parquet"))
    if not files:
        raise RunError(f"{path.parent}: no decisions as of {day}; see the run's log for why it did not decide")
    frame = pl.concat([pl.read_parquet(file, columns=["site_id", "product_id", "quantity"]) for file in files])
    stores = {name: i for i, name in enumerate(company.store_ids)}
    products = {name: i for i, name in enumerate(company.product_ids)}
    rows = _positions(frame["site_id"], stores, path.name)
    columns = _positions(frame["product_id"], products, path.name)
    quantity = np.zeros(company.shape)
    np.add.at(quantity, (rows, columns), frame["quantity"].fill_null(0.0).to_numpy())
    return np.ceil(np.maximum(quantity, 0.0) - 1e-9).astype(np.int64)


def _positions(names: pl.Series, known: dict[str, int], file: str) -> NDArray[np.int64]:
    found = [known.get(name, -1) for name in names.to_list()]
    if -1 in found:
        raise RunError(f"{file}: row {found.index(-1) + 1} orders for {names[found.index(-1)]!r}, which does not exist")
    return np.array(found, dtype=np.int64)


@dataclass
class _Books:
    """The costs of both worlds, entered day by day."""

    company: Company
    _days: list[date] = field(default_factory=list)
    _entries: list[NDArray[np.float64]] = field(default_factory=list)  # (kinds, worlds, S) a day
    _units: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 2)))  # (worlds, demand and sold)

    def enter(self, ours: StoreDay, theirs: StoreDay) -> None:
        worlds = (ours, theirs)
        self._days.append(ours.day)
        self._entries.append(
            np.stack([[day_costs(self.company, day)[kind] for day in worlds] for kind in SIMULATED_KINDS])
        )
        self._units += np.array([[day.demand.sum(), day.sold.sum()] for day in worlds], dtype=np.float64)

    def line(self, day: date) -> str:
        today = self._entries[-1].sum(axis=(0, 2))
        so_far = sum(entry.sum(axis=(0, 2)) for entry in self._entries)
        share = 1.0 - so_far[0] / so_far[1] if so_far[1] > 0 else 0.0
        return f"{day}  npq {today[0]:,.0f}  naive {today[1]:,.0f}  saved so far {share:.1%}"

    def costs(self) -> pl.DataFrame:
        sites = self.company.store_ids
        count, kinds = len(self._days), len(SIMULATED_KINDS)
        table = np.stack(self._entries)  # (days, kinds, worlds, S)
        return pl.DataFrame(
            {
                "day": np.repeat(np.array(self._days, dtype="datetime64[D]"), kinds * len(sites)),
                "site_id": sites * (count * kinds),
                "kind": np.tile(np.repeat(np.array(SIMULATED_KINDS), len(sites)), count),
                "npq": table[:, :, 0, :].ravel(),
                "naive": table[:, :, 1, :].ravel(),
            }
        )

    def service(self) -> pl.DataFrame:
        demand, sold = self._units[:, 0], self._units[:, 1]
        return pl.DataFrame(
            {"world": ["npq", "naive"], "demand": demand, "sold": sold, "fill_rate": sold / np.maximum(demand, 1.0)}
        )


def day_costs(company: Company, happened: StoreDay) -> dict[str, NDArray[np.float64]]:
    """Cost of a day by kind and site, shape (S,), priced by the cost objects that the optimizer minimizes."""
    cost = InventoryCost.of(company.holding_cost, company.shortage_cost)
    # Cost objects have the item first: the products, of which the stores share the rates.
    return {
        "stock": cost.holding.value(happened.closing.T).sum(axis=0),
        "lost_sales": cost.lost_sales.value(happened.lost.T).sum(axis=0),
    }
