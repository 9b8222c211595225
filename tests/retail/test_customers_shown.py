"""What the report says of customer decisions: binding budgets, and why nothing was decided."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from npq_assets.optimization.result import DUALS
from npq_assets.reporting.assets import gather
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
