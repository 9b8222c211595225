"""What a period is, and which day is decided next."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from npq_assets.contracts import LANDING
from npq_assets.errors import NpqError
from npq_assets.periods import detect_period, known_before, latest_as_of, period_of
from npq_assets.settings import Home
from npq_assets.storage import write_parquet

MONDAYS = [date(2024, 4, 1), date(2024, 4, 8), date(2024, 4, 22)]


def land(home: Home, name: str, **columns: list[object]) -> None:
    table = LANDING[name]
    frame = pl.DataFrame(columns)
    full = frame.with_columns(
        pl.lit(None, kind).alias(column) for column, kind in table.schema.items() if column not in frame.columns
    )
    write_parquet(
        full.select(pl.col(c).cast(k) for c, k in table.schema.items()), home.raw_table(table.domain, table.name)
    )


def test_dates_on_one_weekday_are_weeks() -> None:
    assert detect_period(MONDAYS) == "week"
    assert detect_period([*MONDAYS, date(2024, 4, 3)]) == "day"
    assert detect_period([]) == "day"


def test_settings_overrule_the_dates(tmp_path: Path) -> None:
    (tmp_path / "npq.toml").write_text('period = "day"')
    home = Home.at(tmp_path)
    land(home, "retail.sales", sold_on=MONDAYS, site_id=["s"] * 3, product_id=["p"] * 3, quantity=[1.0] * 3)
    assert period_of(home) == "day"


def test_a_week_is_known_when_its_sunday_is_over() -> None:
    assert known_before(date(2024, 4, 15), "week") == date(2024, 4, 8)
    assert known_before(date(2024, 4, 14), "week") == date(2024, 4, 7)  # the week from the 8th is not over
    assert known_before(date(2024, 4, 15), "day") == date(2024, 4, 14)


def test_the_next_decision_follows_the_last_sales(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    land(home, "retail.sales", sold_on=MONDAYS, site_id=["s"] * 3, product_id=["p"] * 3, quantity=[1.0] * 3)
    assert latest_as_of(home) == date(2024, 4, 29)


def test_stock_counted_at_an_opening_is_decided_that_day(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    land(home, "retail.stock", counted_on=[date(2024, 5, 2)], site_id=["s"], product_id=["p"], on_hand=[1.0])
    assert latest_as_of(home) == date(2024, 5, 2)


def test_other_systems_have_days_too(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    left = datetime(2024, 5, 2, 9, tzinfo=UTC)
    land(
        home,
        "logistics.trips",
        delivery_id=["d"],
        vehicle_id=["v"],
        departed_at=[left],
        promised_at=[left],
        arrived_at=[left],
    )
    assert latest_as_of(home) == date(2024, 5, 3)


def test_without_dated_rows_there_is_nothing_to_decide(tmp_path: Path) -> None:
    with pytest.raises(NpqError, match="no rows with dates"):
        latest_as_of(Home.at(tmp_path))
