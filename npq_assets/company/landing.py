"""The company's files: its past written as the landing folder that any company would hand over.

How a day is lived does not belong here (see `history`), nor how files are read (see `ingestion`).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.company import streams
from npq_assets.company.config import LAST_DAY, PLANNED_DAYS, CompanyConfig
from npq_assets.company.customers import Customers
from npq_assets.company.demand import Demand
from npq_assets.company.dirt import TIMESTAMP_FORMAT, dirt_for
from npq_assets.company.fleet import Fleet
from npq_assets.company.history import Present, beginning, months
from npq_assets.company.plant import Plant
from npq_assets.company.stores import StoreDay
from npq_assets.company.world import Company
from npq_assets.contracts import LANDING
from npq_assets.errors import NpqError
from npq_assets.storage import replacing

# Logs other than sales reach back this far; sales and availability reach back to the first day.
LOG_DAYS = 364
# Stock is counted every day for this long before the as-of day, on Mondays before that.
DAILY_COUNT_DAYS = 56
# Orders placed are listed for this long before the as-of day.
ORDER_DAYS = 182
# A month with more rows than this is written compressed.
COMPRESS_ROWS = 200_000
CORRECTED_ROWS = 6


@dataclass
class SampleSummary:
    """What was written.

    Attributes:
        out: The landing folder.
        as_of: The day after the last day of history: the first that can be decided.
        first_day: First day of the sales.
        n_stores: Number of stores.
        n_products: Number of products sold.
        n_series: Store-products.
        files: Files written.
        rows: Rows written, by `domain.table`, dirty ones included.
        broken: Of these, rows that break the contract, by table.
        repeated: Rows that repeat another of the same file, by table.
        corrected: Rows that a later file puts right, by table.
    """

    out: Path
    as_of: date
    first_day: date
    n_stores: int
    n_products: int
    n_series: int
    files: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    corrected: dict[str, int] = field(default_factory=dict)

    @property
    def total_rows(self) -> int:
        """Rows written in all."""
        return sum(self.rows.values())


@dataclass(frozen=True)
class Beginning:
    """The company at the as-of day, when its written history ends and simulated days begin.

    Several worlds start from the same object: they copy what they change.

    Attributes:
        present: The stores and their planner.
        demand: What customers will want.
        plant: The plant, with what it has observed.
        fleet: The fleet, with what it has observed.
        customers: The customers of the stores.
    """

    present: Present
    demand: Demand
    plant: Plant
    fleet: Fleet
    customers: Customers


@dataclass
class LandingFolder:
    """Writes frames as landing files and keeps count.

    Attributes:
        out: The landing folder.
        summary: The count, if anyone wants it.
        keep: Whether a file that is there stays as it is and the new one gets a name of its own: landed rows are traced to
            their file, and a day that is lived must not replace what the past wrote under the same date.
    """

    out: Path
    summary: SampleSummary | None = None
    keep: bool = False

    def write(self, table: str, name: str, frame: pl.DataFrame, *, dirty: bool = False) -> None:
        """Writes `frame` as `<domain>/<table>/<name>.csv`, compressed if it is large; nothing if it is empty."""
        if frame.is_empty():
            return
        declared = LANDING[table]
        content = frame.write_csv(datetime_format=TIMESTAMP_FORMAT)
        height = frame.height
        if dirty:
            dirt = dirt_for(declared, frame)
            content += dirt.lines
            height += dirt.broken + dirt.repeated
            self._count("broken", table, dirt.broken)
            self._count("repeated", table, dirt.repeated)
        large = frame.height > COMPRESS_ROWS
        place, ending = self.out / declared.domain / declared.name, ".csv.gz" if large else ".csv"
        path = place / f"{name}{ending}"
        if self.keep and path.exists():
            path = place / f"{name}_lived{ending}"
        data = content.encode("utf-8")
        with replacing(path) as temporary:
            temporary.write_bytes(gzip.compress(data, compresslevel=1, mtime=0) if large else data)
        self._count("rows", table, height)
        if self.summary is not None:
            self.summary.files += 1

    def _count(self, what: str, table: str, number: int) -> None:
        if self.summary is not None and number:
            counts: dict[str, int] = getattr(self.summary, what)
            counts[table] = counts.get(table, 0) + number


def write_sample(
    out: Path, *, scale: float = 1.0, days: int = 730, seed: int = 0, today: date | None = None
) -> SampleSummary:
    """Writes the sample company's landing folder, `out/<domain>/<table>/….csv`.

    The same arguments give the same bytes; memory grows with one month of one company, not with the days.

    Args:
        out: The landing folder; made if absent.
        scale: 1 is 10 stores x 40 products; the number of series grows in proportion.
        days: Days of history.
        seed: Seed of everything random.
        today: The as-of day; None: the fixed day that keeps samples comparable, 2025-07-01.

    Returns:
        What was written, with the as-of day.

    Raises:
        NpqError: `scale` or `days` is out of range.
    """
    return write_company(out, scale=scale, days=days, seed=seed, today=today)[0]


def write_company(
    out: Path,
    *,
    scale: float = 1.0,
    days: int = 730,
    seed: int = 0,
    today: date | None = None,
    extra_days: int = PLANNED_DAYS,
) -> tuple[SampleSummary, Beginning]:
    """As `write_sample`; also returns the company as it stands at the as-of day, ready to live on for `extra_days`."""
    if not 0 < scale <= 10_000:
        raise NpqError(f"scale = {scale} is out of range; give a number above 0 and at most 10000")
    if not 14 <= days <= 36_500:
        raise NpqError(f"days = {days} is out of range; give a number of days from 14 to 36500")
    config = CompanyConfig(scale=scale, days=days, seed=seed, as_of=today or LAST_DAY + timedelta(days=1))
    company = Company(config)
    demand = Demand(company, extra_days=max(extra_days, PLANNED_DAYS))
    summary = SampleSummary(
        Path(out), config.as_of, config.first_day, *company.shape, n_series=company.shape[0] * company.shape[1]
    )
    folder = LandingFolder(Path(out), summary)
    customers, plant, fleet = Customers(company, demand), Plant(company), Fleet(company, demand)
    _write_master_data(folder, company, plant)
    for table, name, frame in customers.master_tables():
        folder.write(table, name, frame, dirty=True)
    present = beginning(demand)
    log_from = config.as_of - timedelta(days=min(LOG_DAYS, days))
    for month in months(present, demand):
        _write_month(folder, company, demand, month)
        recent = [day for day in month if day.day >= log_from]
        if recent:
            for table, name, frame in customers.month_tables(recent):
                folder.write(table, name, frame, dirty=True)
            plant.observe(recent)
            fleet.observe(recent)
    folder.write("retail.stock", f"stock-{config.as_of}", stock_frame(company, config.as_of, present.stores.on_hand))
    due = (present.stores.arrivals_by_day(config.as_of)[0] * company.weight_kg).sum(axis=1)
    for table, name, frame in (*plant.tables(), *fleet.tables(due), *customers.closing_tables()):
        folder.write(table, name, frame, dirty=True)
    return summary, Beginning(present, demand, plant, fleet, customers)


def _write_master_data(folder: LandingFolder, company: Company, plant: Plant) -> None:
    config = company.config
    ahead = config.as_of + timedelta(days=PLANNED_DAYS)
    products = pl.concat([company.products_frame(), plant.components_frame()], how="diagonal")
    folder.write("common.products", "products", products, dirty=True)
    folder.write("common.sites", "sites", company.sites_frame())
    for year in range(config.first_day.year, ahead.year + 1):
        first, last = max(date(year, 1, 1), config.first_day), date(year, 12, 31)
        folder.write("common.events", f"events-{year}", company.events_frame(first, last))
    folder.write("retail.supply_terms", "supply-terms", company.supply_terms_frame(), dirty=True)
    folder.write(
        "retail.supplier_limits",
        f"supplier-limits-{config.as_of}",
        company.supplier_limits_frame(config.first_day, ahead - timedelta(days=1)),
        dirty=True,
    )
    folder.write(
        "retail.offers",
        f"offers-{config.as_of}",
        company.offers_frame(config.first_day, ahead - timedelta(days=1)),
        dirty=True,
    )


def _write_month(folder: LandingFolder, company: Company, demand: Demand, month: Sequence[StoreDay]) -> None:
    as_of = company.config.as_of
    stem = f"{month[0].day:%Y-%m}"
    last = month[-1].day == as_of - timedelta(days=1)
    sales = sales_frame(company, demand, month)
    if month[0].day >= as_of - timedelta(days=92) and sales.height > 200:
        wrong, right = _mistyped(sales, company.config.seed, month[0].day)
        folder.write("retail.sales", f"sales-{stem}", wrong, dirty=last)
        folder.write("retail.sales", f"sales-{stem}_corrected", right)
        folder._count("corrected", "retail.sales", right.height)
    else:
        folder.write("retail.sales", f"sales-{stem}", sales)
    folder.write("retail.availability", f"availability-{stem}", availability_frame(company, month), dirty=last)
    counted = [day for day in month if day.day.weekday() == 0 or day.day >= as_of - timedelta(days=DAILY_COUNT_DAYS)]
    if counted:
        frame = pl.concat([stock_frame(company, day.day, day.opening) for day in counted])
        folder.write("retail.stock", f"stock-{stem}", frame, dirty=last)
    ordered = [day for day in month if day.day >= as_of - timedelta(days=ORDER_DAYS)]
    if ordered:
        folder.write("retail.open_orders", f"open-orders-{stem}", orders_frame(company, ordered), dirty=last)


def _mistyped(sales: pl.DataFrame, seed: int, day: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sales with a few quantities ten times too high, and the rows that put them right."""
    picks = streams.uniform(seed, "mistyped", day.toordinal(), np.arange(CORRECTED_ROWS))
    rows = np.unique((picks * sales.height).astype(np.int64))
    quantity = sales["quantity"].to_numpy().copy()
    quantity[rows] = quantity[rows] * 10 + 10
    return sales.with_columns(pl.Series("quantity", quantity)), sales[rows]


# Frames of single tables, which the closed loop lands day by day as well --------------------------------------------


def _grid(company: Company, days: Sequence[date], keep: Sequence[np.ndarray]) -> dict[str, pl.Series]:
    """Columns day, site_id, product_id for the kept pairs of each day; `keep` holds a mask (S, P) for each day."""
    products = company.shape[1]
    where = [np.flatnonzero(mask) for mask in keep]
    flat = np.concatenate(where) if where else np.empty(0, dtype=np.int64)
    counts = [len(w) for w in where]
    dates = np.repeat(np.array(days, dtype="datetime64[D]"), counts)
    return {
        "day": pl.Series(dates).cast(pl.Date),
        "site_id": pl.Series(company.store_ids, dtype=pl.String).gather(flat // products),
        "product_id": pl.Series(company.product_ids, dtype=pl.String).gather(flat % products),
    }


def sales_frame(company: Company, demand: Demand, month: Sequence[StoreDay]) -> pl.DataFrame:
    """`retail.sales` of the days given: a row for each listed store-product, sold or not."""
    masks = [np.broadcast_to(demand.listed(day.day), company.shape) for day in month]
    grid = _grid(company, [day.day for day in month], masks)
    prices = company.list_prices(month[0].day, len(month))
    quantity, price, promotion = [], [], []
    for k, (day, mask) in enumerate(zip(month, masks, strict=True)):
        discount = demand.discount(day.day)
        paid = np.round(prices[k] * (1.0 - discount), 2)
        quantity.append(day.sold[mask])
        price.append(np.broadcast_to(paid, company.shape)[mask])
        promotion.append(np.broadcast_to(discount > 0, company.shape)[mask])
    return pl.DataFrame(
        {
            "sold_on": grid["day"],
            "site_id": grid["site_id"],
            "product_id": grid["product_id"],
            "quantity": np.concatenate(quantity),
            "price": np.concatenate(price),
            "promotion": np.concatenate(promotion).astype(np.int8),
        }
    )


def availability_frame(company: Company, month: Sequence[StoreDay]) -> pl.DataFrame:
    """`retail.availability` of the days given: a row for each empty shelf of a listed product."""
    masks = [~day.in_stock & (company.listed_ordinal <= day.day.toordinal())[None, :] for day in month]
    grid = _grid(company, [day.day for day in month], masks)
    return pl.DataFrame(
        {
            "sold_on": grid["day"],
            "site_id": grid["site_id"],
            "product_id": grid["product_id"],
            "in_stock": np.zeros(len(grid["day"]), dtype=np.int8),
        }
    )


def stock_frame(company: Company, day: date, on_hand: np.ndarray) -> pl.DataFrame:
    """`retail.stock` at the opening of `day`: a count for each store-product."""
    grid = _grid(company, [day], [np.ones(company.shape, dtype=bool)])
    return pl.DataFrame(
        {
            "counted_on": grid["day"],
            "site_id": grid["site_id"],
            "product_id": grid["product_id"],
            "on_hand": on_hand.ravel(),
        }
    )


def orders_frame(company: Company, month: Sequence[StoreDay]) -> pl.DataFrame:
    """`retail.open_orders` placed as of the days given, as accepted by the suppliers."""
    masks = [day.ordered > 0 for day in month]
    grid = _grid(company, [day.day for day in month], masks)
    lead = np.concatenate([company.lead_time[mask] for mask in masks])
    quantity = np.concatenate([day.ordered[mask] for day, mask in zip(month, masks, strict=True)])
    arrives = (grid["day"].to_numpy() + lead.astype("timedelta64[D]")).astype("datetime64[D]")
    return pl.DataFrame(
        {
            "site_id": grid["site_id"],
            "product_id": grid["product_id"],
            "arrives_on": pl.Series(arrives).cast(pl.Date),
            "quantity": quantity,
            "ordered_on": grid["day"],
        }
    )


def tables_written(out: Path) -> Iterator[tuple[str, Path]]:
    """The landing files under `out` with their `domain.table`, sorted."""
    for path in sorted(out.glob("*/*/*.csv*")):
        yield f"{path.parent.parent.name}.{path.parent.name}", path
