"""The sample company's landing files: deterministic, linked, true to the contracts but for the dirt that was put in."""

from __future__ import annotations

import gzip
import hashlib
import io
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from npq_assets.company.landing import SampleSummary, tables_written, write_sample
from npq_assets.contracts import LANDING, Column, Kind
from npq_assets.errors import NpqError

SCALE, DAYS, SEED = 0.1, 130, 7


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return write_sample(tmp_path_factory.mktemp("sample"), scale=SCALE, days=DAYS, seed=SEED)


# Travel times override the road graph, planners' numbers the forecast; the sample company overrides nothing.
NOT_WRITTEN = {"logistics.travel_times", "retail.forecast_overrides"}


def text_of(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def rows_of(path: Path) -> pl.DataFrame:
    return pl.read_csv(io.BytesIO(text_of(path)), infer_schema=False)


def with_key(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with those parts of the key, empty, that files may leave out."""
    missing = [column for column in LANDING[name].key if column not in rows.columns]
    return rows.with_columns(pl.lit(None, pl.String).alias(column) for column in missing)


def table(sample: SampleSummary, name: str) -> pl.DataFrame:
    """All accepted rows of a table, the last file winning."""
    frames = [
        rows_of(path).filter(valid(name, rows_of(path))) for found, path in tables_written(sample.out) if found == name
    ]
    rows = with_key(name, pl.concat(frames, how="diagonal"))
    return rows.unique(subset=list(LANDING[name].key), keep="last", maintain_order=True)


def holds(column: Column) -> pl.Expr:
    """Whether the text in a column keeps the contract."""
    cell = pl.col(column.name)
    if column.kind in (Kind.NUMBER, Kind.INTEGER):
        number = cell.cast(pl.Float64, strict=False)
        good = number.is_not_null() & number.is_finite()
        if column.low is not None:
            good &= number >= column.low
        if column.high is not None:
            good &= number <= column.high
    elif column.kind is Kind.DATE:
        good = cell.str.to_date("%Y-%m-%d", strict=False).is_not_null()
    elif column.kind is Kind.TIMESTAMP:
        good = cell.str.to_datetime("%Y-%m-%dT%H:%M:%SZ", strict=False).is_not_null()
    elif column.kind is Kind.FLAG:
        good = cell.is_in(["0", "1"])
    else:
        good = cell.is_not_null() & (cell.str.len_chars() > 0)
        if column.choices:
            good &= cell.is_in(list(column.choices))
    good = good.fill_null(False)
    return good if column.required else good | cell.is_null()


def valid(name: str, frame: pl.DataFrame) -> pl.Series:
    """Which rows keep the contract of table `name`."""
    declared = LANDING[name]
    checks = [holds(column) for column in declared.columns if column.name in frame.columns]
    checks += [
        pl.any_horizontal(pl.col(c).is_not_null() for c in group if c in frame.columns) for group in declared.any_of
    ]
    return frame.select(pl.all_horizontal(checks))[:, 0]


def test_same_arguments_same_bytes(sample: SampleSummary, tmp_path: Path) -> None:
    again = write_sample(tmp_path, scale=SCALE, days=DAYS, seed=SEED)

    def bytes_under(folder: Path) -> dict[str, str]:
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.csv*")}

    assert bytes_under(sample.out) == bytes_under(tmp_path)
    assert again.rows == sample.rows


def test_another_seed_is_another_company(sample: SampleSummary, tmp_path: Path) -> None:
    write_sample(tmp_path, scale=SCALE, days=DAYS, seed=SEED + 1)
    assert (tmp_path / "common/products/products.csv").read_bytes() != (
        sample.out / "common/products/products.csv"
    ).read_bytes()


def test_history_ends_the_day_before_as_of(sample: SampleSummary) -> None:
    assert sample.as_of == date(2025, 7, 1)
    sold_on = table(sample, "retail.sales")["sold_on"].str.to_date()
    assert sold_on.max() == date(2025, 6, 30)
    assert sold_on.min() == sample.first_day == date(2025, 7, 1) - timedelta(days=DAYS)


def test_every_table_of_the_three_systems_but_computed_ones_is_written(sample: SampleSummary) -> None:
    written = {name for name, _ in tables_written(sample.out)}
    assert set(LANDING) - written == NOT_WRITTEN


def test_only_the_declared_dirt_breaks_the_contracts(sample: SampleSummary) -> None:
    for name in LANDING:
        broken = landed = 0
        for found, path in tables_written(sample.out):
            if found != name:
                continue
            frame = rows_of(path)
            missing = {c.name for c in LANDING[name].columns if c.required} - set(frame.columns)
            assert not missing, f"{path.name} lacks {missing}"
            known = {c.name for c in LANDING[name].columns}
            assert LANDING[name].extra_columns or set(frame.columns) <= known, path.name
            landed += frame.height
            broken += int((~valid(name, frame)).sum())
        assert (landed, broken) == (sample.rows.get(name, 0), sample.broken.get(name, 0)), name


def test_keys_repeat_only_where_declared(sample: SampleSummary) -> None:
    for name in LANDING:
        frames = [rows_of(path) for found, path in tables_written(sample.out) if found == name]
        if not frames:
            continue
        good = with_key(name, pl.concat([frame.filter(valid(name, frame)) for frame in frames], how="diagonal"))
        spare = good.height - good.unique(subset=list(LANDING[name].key)).height
        assert spare == sample.repeated.get(name, 0) + sample.corrected.get(name, 0), name


def test_references_lead_somewhere(sample: SampleSummary) -> None:
    for name, declared in LANDING.items():
        if name in NOT_WRITTEN:
            continue
        rows = table(sample, name)
        for column in declared.columns:
            if column.references is None or column.name not in rows.columns:
                continue
            target = table(sample, column.references)[LANDING[column.references].key[0]]
            lost = set(rows[column.name].drop_nulls()) - set(target)
            assert not lost, f"{name}.{column.name}: {sorted(lost)[:3]}"


def test_corrections_come_later_by_name(sample: SampleSummary) -> None:
    names = [path.name for name, path in tables_written(sample.out) if name == "retail.sales"]
    assert "sales-2025-06_corrected.csv" in names
    assert names.index("sales-2025-06_corrected.csv") > names.index("sales-2025-06.csv")
    assert sample.corrected["retail.sales"] > 0


def test_stores_sell_what_arrived_or_lay_there(sample: SampleSummary) -> None:
    pair = ["site_id", "product_id"]
    stock = table(sample, "retail.stock").with_columns(
        pl.col("counted_on").str.to_date(), pl.col("on_hand").cast(pl.Int64)
    )
    first = sample.as_of - timedelta(days=50)
    opening = stock.filter(pl.col("counted_on") == first).select(*pair, "on_hand")
    closing = stock.filter(pl.col("counted_on") == sample.as_of).select(*pair, closing="on_hand")
    orders = table(sample, "retail.open_orders").with_columns(pl.col("arrives_on").str.to_date())
    arrived = (
        orders.filter(pl.col("arrives_on").is_between(first, sample.as_of, closed="left"))
        .group_by(pair)
        .agg(arrived=pl.col("quantity").cast(pl.Int64).sum())
    )
    sales = table(sample, "retail.sales").with_columns(pl.col("sold_on").str.to_date())
    sold = sales.filter(pl.col("sold_on") >= first).group_by(pair).agg(sold=pl.col("quantity").cast(pl.Int64).sum())
    books = (
        opening.join(arrived, on=pair, how="left").join(sold, on=pair, how="left").join(closing, on=pair).fill_null(0)
    )
    assert books.height == sample.n_series
    assert books.filter(pl.col("on_hand") + pl.col("arrived") - pl.col("sold") != pl.col("closing")).is_empty()
    assert books["sold"].sum() > 0


def test_baskets_hold_a_part_of_the_sales(sample: SampleSummary) -> None:
    keys = ["day", "site_id", "product_id"]
    baskets = table(sample, "retail.baskets").with_columns(day=pl.col("bought_at").str.slice(0, 10))
    bought = baskets.group_by(keys).agg(bought=pl.col("quantity").cast(pl.Int64).sum())
    sales = table(sample, "retail.sales").select(
        day="sold_on", site_id="site_id", product_id="product_id", quantity="quantity"
    )
    both = bought.join(sales, on=keys, how="left")
    # `or` of a missing sale would be null and be kept by the filter below.
    assert both.filter(pl.col("quantity").cast(pl.Int64).fill_null(0) < pl.col("bought")).is_empty()


def test_promotions_in_sales_follow_the_offers(sample: SampleSummary) -> None:
    offers = table(sample, "retail.offers")
    families = table(sample, "common.products").select("product_id", "family")
    sales = table(sample, "retail.sales")
    promoted = set(sales.filter(pl.col("promotion") == "1").select("sold_on", "product_id").unique().iter_rows())
    expected = set()
    for offer in offers.iter_rows(named=True):
        day, end = date.fromisoformat(offer["starts_on"]), date.fromisoformat(offer["ends_on"])
        chosen = (
            [offer["product_id"]]
            if offer["product_id"]
            else families.filter(pl.col("family") == offer["family"])["product_id"]
        )
        while day <= end:
            expected |= {(day.isoformat(), product) for product in chosen}
            day += timedelta(days=1)
    assert promoted
    assert promoted <= expected | set(carried_over(sample))
    assert any(date.fromisoformat(offer["starts_on"]) > sample.as_of for offer in offers.iter_rows(named=True))


def carried_over(sample: SampleSummary) -> list[tuple[str, str]]:
    """Promoted days of offers that began before the first written offer."""
    sales = table(sample, "retail.sales")
    early = (sample.first_day + timedelta(days=14)).isoformat()
    return list(
        sales.filter((pl.col("promotion") == "1") & (pl.col("sold_on") < early))
        .select("sold_on", "product_id")
        .iter_rows()
    )


def test_the_plant_and_the_fleet_serve_the_stores(sample: SampleSummary) -> None:
    made = set(table(sample, "manufacturing.production_log")["product_id"])
    sold = set(table(sample, "retail.sales")["product_id"])
    assert made <= sold
    assert len(made) > len(sold) / 2
    deliveries = table(sample, "logistics.deliveries")
    trips = table(sample, "logistics.trips")
    assert set(trips["delivery_id"]) < set(deliveries["delivery_id"])
    due = deliveries.filter(~pl.col("delivery_id").is_in(trips["delivery_id"].to_list()))
    assert set(due["ready_at"].str.slice(0, 10)) == {sample.as_of.isoformat()}


@pytest.mark.parametrize(("scale", "days"), [(0.0, 100), (-1.0, 100), (1.0, 3)])
def test_unusable_sizes_are_refused(tmp_path: Path, scale: float, days: int) -> None:
    with pytest.raises(NpqError):
        write_sample(tmp_path, scale=scale, days=days)
