"""What the report says of customer decisions: binding budgets, and why nothing was decided."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from npq_assets.optimization.result import DUALS
from npq_assets.reporting.assets import _together, gather
from npq_assets.reporting.report import build_report
from npq_assets.retail import customer_output
from npq_assets.settings import Home

DAY = date(2025, 7, 1)


def test_binding_budgets_and_reasons_reach_the_page(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    assert gather(home, DAY).limits.is_empty()
    offers = [("OF-1", None, "budget", 50.0, 50.0, 1.25, "dual"), ("OF-2", None, "budget", 50.0, 7.0, 0.0, "dual")]
    duals = pl.DataFrame(offers, schema=DUALS, orient="row")
    customer_output.save(home, DAY, "offer_duals", duals)
    customer_output.save(home, DAY, "offers", pl.DataFrame(), {"note": "left out: OF-3"})
    data = gather(home, DAY)
    assert data.limits["supplier_id"].to_list() == ["OF-1"]
    page = build_report(data)
    assert "OF-1" in page and "<td>None</td>" not in page and "offers to customers: left out: OF-3" in page
    customer_output.withdraw(home, DAY, "no purchases landed")
    assert list(gather(home, DAY).skipped) == ["customers: no purchases landed"]


def test_limits_of_several_systems_stand_in_one_table() -> None:
    """Those of orders and offers say how they were found, those of routes do not."""
    ours = pl.DataFrame([("OF-1", DAY, "budget", 50.0, 50.0, 1.25, "dual")], schema=DUALS, orient="row")
    theirs = pl.DataFrame({"supplier_id": ["V1"], "arrives_on": ["the day"], "limit": ["hours"], "amount": [8.0],
                           "used": [8.0], "worth_per_unit": [2.0]})  # fmt: skip
    for frames in ((ours, theirs), (theirs, ours)):
        assert _together(*frames).sort("supplier_id")["arrives_on"].to_list() == ["2025-07-01", "the day"]
