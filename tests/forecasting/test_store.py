"""The kept panel: extended day by day it is the panel built at once, and what it cannot take it names."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from npq_assets.errors import NpqError
from npq_assets.forecasting.panel import Panel, build
from npq_assets.forecasting.store import extended, load_panel, save_panel

FIRST = date(2023, 1, 2)


def rows(days: int, series: int = 5) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    frame = pl.DataFrame(
        {
            "unique_id": np.repeat([f"s{i}" for i in range(series)], days),
            "ds": [FIRST + timedelta(days=t) for t in range(days)] * series,
            "y": rng.poisson(4.0, days * series).astype(float),
            "price": rng.choice([1.0, 2.0], days * series),
            "event": rng.choice(["", "fair", "match"], days * series),
        }
    )
    late = (pl.col("unique_id") == "s3") & (pl.col("ds") < FIRST + timedelta(days=20))
    return frame.filter(~late)


def same(a: Panel, b: Panel) -> None:
    assert list(a.ids) == list(b.ids)
    assert a.start == b.start
    for name in ("y", "observed", "in_stock", "first"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert list(a.known) == list(b.known)
    for name in a.known:
        np.testing.assert_array_equal(a.known[name], b.known[name], err_msg=name)
    assert a.words == b.words


def test_a_panel_is_read_as_it_was_written(tmp_path: Path):
    static = pl.DataFrame({"unique_id": [f"s{i}" for i in range(5)], "store": list("aabbb"), "size": [1.0, 2, 3, 4, 5]})
    panel = build(rows(60), "D", static=static, horizon=3)
    again = load_panel(save_panel(panel, tmp_path / "panel"))
    same(panel, again)
    assert again.groups["store"][0] == panel.groups["store"][0]
    np.testing.assert_array_equal(again.numeric["size"], panel.numeric["size"])


@pytest.mark.parametrize("cut", [30, 57, 59])
def test_a_panel_extended_is_the_panel_built_at_once(cut: int):
    frame = rows(60)
    ahead = frame.filter(pl.col("ds") >= FIRST + timedelta(days=57)).drop("y")
    day = FIRST + timedelta(days=cut)
    words = {"event": ("", "fair", "match")}
    stock = frame.select("unique_id", "ds", (pl.col("y") != 3).alias("in_stock"))
    whole = build(frame, "D", future=ahead, available=stock, horizon=2, words=words)
    old = build(frame.filter(pl.col("ds") < day), "D", available=stock, horizon=2, words=words)
    late = frame.filter(pl.col("ds") >= day)
    same(whole, extended(old, late, "D", future=ahead, available=stock, horizon=2))


def test_known_days_and_strange_series_are_refused():
    panel = build(rows(40), "D")
    with pytest.raises(NpqError, match="2023-02-10 is known already"):
        extended(panel, rows(41).filter(pl.col("ds") >= FIRST + timedelta(days=39)), "D")
    late = rows(42).filter(pl.col("ds") >= FIRST + timedelta(days=40))
    with pytest.raises(NpqError, match="new is not in the stored panel"):
        extended(panel, late.with_columns(pl.lit("new").alias("unique_id")).unique(["unique_id", "ds"]), "D")


def test_an_unreadable_panel_is_named(tmp_path: Path):
    with pytest.raises(NpqError, match="no readable panel"):
        load_panel(tmp_path)
