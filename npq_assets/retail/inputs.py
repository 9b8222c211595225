"""What retail decisions may look at: the marts, cut to what was known before the as-of day opened.

The only place that decides what was known when; engines get frames that hold nothing later.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.errors import NpqError, Unavailable
from npq_assets.periods import DAYS, known_before, period_of
from npq_assets.retail.covariates import with_covariates
from npq_assets.settings import Home, Period, Settings
from npq_assets.storage import fingerprint

PAIR = ["site_id", "product_id"]
OVERRIDES: dict[str, pl.DataType] = {
    "unique_id": pl.String(), "period_start": pl.Date(), "quantity": pl.Float64(), "made_on": pl.Date(),
    "planner": pl.String(), "reason": pl.String(),
}  # fmt: skip


@dataclass(frozen=True)
class RetailInputs:
    """Everything that a replenishment decision may use.

    Attributes:
        as_of: The decision is taken before this day opens.
        period: Length of a period.
        settings: The home's settings.
        history: One row a series and period: unique_id, site_id, product_id, family, period_start, quantity, in_stock,
            discount, promoted, and event columns; only periods that had ended before `as_of`.
        items: One row a pair to decide: unique_id, site_id, product_id, family, unit_cost, lead_time_periods,
            holding_cost, shortage_cost, pack_size, min_order, supplier_id, on_hand (at the opening of `as_of`),
            counted_on, assumptions (what had to be assumed, in words; empty if nothing).
        arrivals: Units under way: unique_id, site_id, product_id, arrives_on (>= as_of), step (periods after `as_of`),
            quantity.
        limits: supplier_id, arrives_on, max_quantity, max_spend.
        promotions: Known-ahead promotions: product_id, starts_on, ends_on, discount.
        events: event_on, name, region.
        sites: site_id, kind, region.
        overrides: Planners' own numbers for periods to come, made before `as_of`: unique_id, period_start, quantity, made_on,
            planner, reason; one row a series and period.
        skipped: What could not be computed, with the reason.
    """

    as_of: date
    period: Period
    settings: Settings
    history: pl.DataFrame
    items: pl.DataFrame
    arrivals: pl.DataFrame
    limits: pl.DataFrame
    promotions: pl.DataFrame
    events: pl.DataFrame
    sites: pl.DataFrame
    overrides: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=OVERRIDES))
    skipped: tuple[str, ...] = ()

    @property
    def days(self) -> int:
        """Days in a period."""
        return DAYS[self.period]

    @property
    def frequency(self) -> str:
        """The period as the forecasting engine names it."""
        return "W-MON" if self.period == "week" else "D"

    @cached_property
    def snapshot(self) -> str:
        """Hash of all that the decision looks at."""
        return fingerprint(
            self.history,
            self.items,
            self.arrivals,
            self.limits,
            self.promotions,
            self.events,
            self.sites,
            self.overrides,
            {"as_of": self.as_of.isoformat(), "period": self.period, "settings": repr(self.settings)},
        )

    def turned_back(self, as_of: date, on_hand: np.ndarray, coming: np.ndarray) -> RetailInputs:
        """What was known before an earlier day opened, with this stock (n) and these units under way by step (n, steps)."""
        row, step = np.nonzero(coming > 0)
        arrivals = (
            self.items[row]
            .select("unique_id", *PAIR)
            .with_columns(
                pl.Series("arrives_on", [as_of + timedelta(days=self.days * int(k)) for k in step], dtype=pl.Date),
                pl.Series("step", step, dtype=pl.Int64),
                pl.Series("quantity", coming[row, step], dtype=pl.Float64),
            )
        )
        return replace(
            self,
            as_of=as_of,
            history=self.at(as_of),
            items=self.items.with_columns(pl.Series("on_hand", on_hand, dtype=pl.Float64)),
            arrivals=arrivals.sort("unique_id", "arrives_on"),
            limits=self.limits.filter(pl.col("arrives_on") >= as_of),
            overrides=self.overrides.head(0),
        )

    def at(self, day: date) -> pl.DataFrame:
        """History as it was known before `day` opened, for a model trained then."""
        return self.history.filter(pl.col("period_start") <= known_before(day, self.period))


def read_inputs(home: Home, as_of: date) -> RetailInputs:
    """Reads the retail marts as they were known before `as_of` opened.

    Raises:
        Unavailable: There are no sales or no supply terms known by then.
        NpqError: The marts do not exist.
    """
    period = period_of(home)
    notes: list[str] = []
    terms = _mart(home, "retail", "supply_terms")
    if terms.is_empty():
        raise Unavailable("retail.supply_terms: no rows accepted, so no order can be priced; land lead times and costs")
    sites = _mart(home, "common", "sites").select("site_id", "kind", "region").sort("site_id")
    promotions = _mart(home, "retail", "promotions").select("product_id", "starts_on", "ends_on", "discount").unique()
    promotions = promotions.sort("product_id", "starts_on", "ends_on", "discount")
    events = (
        _mart(home, "common", "events").select("event_on", "name", "region").unique().sort("event_on", "name", "region")
    )
    history = _history(home, as_of, period)
    if history.is_empty():
        raise Unavailable(f"retail.sales: no period had ended before {as_of}; land sales or choose a later --as-of")
    late = _late_sites(home, as_of, period)
    if late:
        notes.append(
            f"retail.sales: nothing has landed of {', '.join(late[:3])}{' …' if late[3:] else ''} while other sites sold; demand "
            "there since is unknown, not zero; land what is late"
        )
    items = _items(home, terms, history)
    items, arrivals = _stock(home, items, history, as_of, period, notes)
    limits = (
        _mart(home, "retail", "supplier_limits")
        .select("supplier_id", "arrives_on", "max_quantity", "max_spend")
        .filter(pl.col("arrives_on") >= as_of)
        .sort("supplier_id", "arrives_on")
    )
    history = with_covariates(history, promotions, events, sites, period)
    overrides = _overrides(home, items, as_of, period, notes)
    return RetailInputs(
        as_of,
        period,
        home.settings,
        history,
        items,
        arrivals,
        limits,
        promotions,
        events,
        sites,
        overrides,
        tuple(notes),
    )


def _overrides(home: Home, items: pl.DataFrame, as_of: date, period: Period, notes: list[str]) -> pl.DataFrame:
    """The latest override of each pair and period to come that was made before `as_of` opened."""
    if not home.mart("retail", "forecast_overrides").exists():
        return pl.DataFrame(schema=OVERRIDES)
    made = _mart(home, "retail", "forecast_overrides").filter(
        (pl.col("made_on") < as_of) & (pl.col("period_start") >= as_of)
    )
    latest = made.sort(*PAIR, "period_start", "made_on").unique(
        [*PAIR, "period_start"], keep="last", maintain_order=True
    )
    found = latest.join(items.select(*PAIR, "unique_id"), on=PAIR, how="inner")
    if found.height < latest.height:
        notes.append(f"{latest.height - found.height} forecast overrides are of pairs that are not ordered; left aside")
    offset = (pl.col("period_start") - as_of).dt.total_days() % DAYS[period]
    if off := found.filter(offset != 0).height:
        notes.append(f"{off} forecast overrides do not name the first day of a {period}; left aside")
    return found.filter(offset == 0).select(list(OVERRIDES)).sort("unique_id", "period_start")


def _mart_path(home: Home, domain: str, model: str) -> Path:
    place = home.mart(domain, model)
    if not place.exists():
        raise NpqError(f"{place}: not built yet; materialize marts/{domain}/{model} (npq run does)")
    return place


def _mart(home: Home, domain: str, model: str) -> pl.DataFrame:
    return pl.read_parquet(_mart_path(home, domain, model))


def _history(home: Home, as_of: date, period: Period) -> pl.DataFrame:
    return (
        pl.scan_parquet(_mart_path(home, "retail", "demand"))
        .filter(pl.col("period_start") <= known_before(as_of, period))
        .select(
            (pl.col("site_id") + "|" + pl.col("product_id")).alias("unique_id"),
            "site_id",
            "product_id",
            "family",
            "period_start",
            pl.col("quantity").cast(pl.Float64),
            pl.col("in_stock").cast(pl.Boolean),
            pl.col("promotion").cast(pl.Float64).fill_null(0.0),
        )
        .sort("unique_id", "period_start")
        .collect()
    )


def _late_sites(home: Home, as_of: date, period: Period) -> list[str]:
    """Sites whose last sales before the day have not landed, each with the first period that is missing."""
    gone = (
        pl.scan_parquet(_mart_path(home, "retail", "demand"))
        .filter(~pl.col("landed") & (pl.col("period_start") <= known_before(as_of, period)))
        .group_by("site_id")
        .agg(pl.col("period_start").min())
        .sort("site_id")
        .collect()
    )
    return [f"{site} since {since}" for site, since in gone.iter_rows()]


def _items(home: Home, terms: pl.DataFrame, history: pl.DataFrame) -> pl.DataFrame:
    """Pairs to decide, each with terms: its own, else the median of the product's, else of all."""
    products = _mart(home, "common", "products").select("product_id", "family", "unit_cost").unique("product_id")
    own = terms.select(
        *PAIR, "lead_time_periods", "holding_cost", "shortage_cost", "pack_size", "min_order", "supplier_id"
    ).with_columns(pl.lit("").alias("assumptions"))
    sold = history.select(PAIR).unique()
    lacking = sold.join(own, on=PAIR, how="anti")
    if lacking.height:
        numbers = ["lead_time_periods", "holding_cost", "shortage_cost", "pack_size", "min_order"]
        medians = [pl.col(name).quantile(0.5, "nearest").cast(own.schema[name]) for name in numbers]
        of_product = own.group_by("product_id").agg(*medians, pl.col("supplier_id").drop_nulls().sort().first())
        borrowed = lacking.join(of_product, on="product_id", how="inner").with_columns(
            pl.lit("no supply terms: those of the product's other sites assumed").alias("assumptions")
        )
        rest = lacking.join(of_product, on="product_id", how="anti")
        of_all = own.select(*medians, pl.lit(None, pl.String).alias("supplier_id"))
        general = rest.join(of_all, how="cross").with_columns(
            pl.lit("no supply terms: the median of all products assumed").alias("assumptions")
        )
        own = pl.concat([own, borrowed.select(own.columns), general.select(own.columns)])
    return (
        own.join(products, on="product_id", how="left")
        .with_columns(
            (pl.col("site_id") + "|" + pl.col("product_id")).alias("unique_id"),
            pl.col("pack_size").fill_null(1.0),
            pl.col("min_order").fill_null(0.0),
            pl.col("unit_cost").fill_null(0.0),
            pl.col("family").fill_null(""),
        )
        .sort("unique_id")
    )


def _stock(
    home: Home, items: pl.DataFrame, history: pl.DataFrame, as_of: date, period: Period, notes: list[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Adds the stock at the opening of `as_of`, and lists what is under way.

    A count of an earlier day is carried forward: plus what has arrived since, minus what was sold since.
    """
    counts = (
        _mart(home, "retail", "stock_position")
        .filter(pl.col("counted_on") <= as_of)
        .sort(*PAIR, "counted_on")
        .group_by(PAIR, maintain_order=True)
        .agg(pl.col("counted_on").last(), pl.col("on_hand").last())
    )
    items = items.join(counts, on=PAIR, how="left")
    orders = known_orders(_mart(home, "retail", "open_orders"), items, as_of, period, _is_live(home, as_of, period))
    since = orders.join(items.select(*PAIR, "counted_on"), on=PAIR, how="inner").with_columns(
        # Without a count, only what is still to come can be told from what has long been sold.
        pl.col("counted_on").fill_null(as_of)
    )
    arrived = (
        since.filter((pl.col("arrives_on") >= pl.col("counted_on")) & (pl.col("arrives_on") < as_of))
        .group_by(PAIR)
        .agg(pl.col("quantity").sum().alias("arrived"))
    )
    old = items.filter(pl.col("counted_on") < as_of).select(*PAIR, "counted_on")
    sold = (
        history.join(old, on=PAIR, how="inner")
        .filter(pl.col("period_start") + pl.duration(days=DAYS[period] - 1) >= pl.col("counted_on"))
        .group_by(PAIR)
        .agg(pl.col("quantity").sum().alias("sold"))
    )
    items = (
        items.join(arrived, on=PAIR, how="left")
        .join(sold, on=PAIR, how="left")
        .with_columns(
            pl.col("assumptions")
            .str.split("; ")
            .list.concat(
                pl.when(pl.col("counted_on").is_null())
                .then(pl.lit("no stock count: 0 on hand assumed"))
                .when(pl.col("counted_on") < as_of)
                .then(pl.format("stock counted on {}, carried forward", pl.col("counted_on").dt.to_string("%Y-%m-%d")))
                .otherwise(pl.lit(""))
            )
            .list.filter(pl.element() != "")
            .list.join("; "),
            (pl.col("on_hand").fill_null(0.0) + pl.col("arrived").fill_null(0.0) - pl.col("sold").fill_null(0.0))
            .clip(lower_bound=0.0)
            .alias("on_hand"),
        )
        .drop("arrived", "sold")
        .sort("unique_id")
    )
    uncounted = items.filter(pl.col("counted_on").is_null()).height
    if uncounted:
        notes.append(f"{uncounted} of {items.height} pairs have no stock count by {as_of}; 0 on hand assumed")
    arrivals = (
        orders.filter((pl.col("arrives_on") >= as_of) & (pl.col("quantity") > 0))
        .join(items.select(*PAIR, "unique_id"), on=PAIR, how="inner")
        .with_columns(
            ((pl.col("arrives_on") - as_of).dt.total_days() // DAYS[period]).cast(pl.Int64).alias("step"),
        )
        .select("unique_id", *PAIR, "arrives_on", "step", "quantity")
        .sort("unique_id", "arrives_on")
    )
    return items, arrivals


def known_orders(orders: pl.DataFrame, items: pl.DataFrame, as_of: date, period: Period, live: bool) -> pl.DataFrame:
    """Open orders that had been placed before `as_of` opened.

    `ordered_on` tells; without it, on a past as-of day, an order that arrives no sooner than one placed on that day
    would is taken as placed later. On the latest day everything landed is known.
    """
    lead = items.select(*PAIR, (pl.col("lead_time_periods") * DAYS[period]).alias("lead_days"))
    placed_before = (
        pl.when(pl.col("ordered_on").is_not_null())
        .then(pl.col("ordered_on") < as_of)
        .when(pl.lit(live))
        .then(pl.lit(True))
        .otherwise(pl.col("arrives_on") < pl.lit(as_of) + pl.duration(days=pl.col("lead_days").fill_null(0)))
    )
    return orders.join(lead, on=PAIR, how="left").filter(placed_before).drop("lead_days")


def _is_live(home: Home, as_of: date, period: Period) -> bool:
    """Whether nothing is known that happened on or after `as_of`."""
    last_sale = pl.scan_parquet(home.mart("retail", "demand")).select(pl.col("period_start").max()).collect().item()
    counts = pl.scan_parquet(home.mart("retail", "stock_position"))
    last_count = counts.select(pl.col("counted_on").max()).collect().item()
    return (last_sale is None or last_sale <= known_before(as_of, period)) and (
        last_count is None or last_count <= as_of
    )
