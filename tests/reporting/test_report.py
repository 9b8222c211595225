"""The page stands by itself, escapes what it shows, and says what is missing."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl

from npq_assets.reporting.report import DECISION_COLUMNS, ReportData, build_report
from npq_assets.reporting.summary import summary_frame, summary_table
from npq_assets.reporting.svg import Fan, bar_chart, fan_chart

FAN = Fan("高山绿茶 / <store>", [3.0, None, 4.0], ["a", "b", "c", "d", "e"], [([1, 1], [6, 7])], [3, 4], 1)


def ledger(n: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "domain": ["retail"] * n,
            "kind": ["replenishment_orders"] * n,
            "expected_cost": [2.0] * n,
            "naive_cost": [2.5] * n,
            "lower_bound": [1.9] * n,
        }
    )


def data(n: int = 60) -> ReportData:
    rows = [
        (f"id{k:03d}", "replenishment_orders", f"product {k} at </script><script>alert(1)</script>", f"order {k}", "2024-04-29",
         float(k), 2.0, 2.5, 1.9, "because" if k % 2 else "茶叶")
        for k in range(n)
    ]  # fmt: skip
    return ReportData(
        as_of=date(2024, 4, 15),
        company="Müller & <Söhne>",
        period="week",
        summary=summary_frame(ledger(n)),
        decisions=pl.DataFrame(rows, schema=list(DECISION_COLUMNS), orient="row"),
        fans=[("id001", FAN)],
        skipped=["no <sales>"],
    )


def test_the_page_needs_nothing_from_outside_and_escapes_everything() -> None:
    page = build_report(data())
    assert "<script>alert(1)" not in page
    assert "Müller &amp; &lt;Söhne&gt;" in page
    assert "no &lt;sales&gt;" in page
    assert "default-src 'none'" in page
    for mark in ('src="http', 'href="http', "@import", "url("):
        assert mark not in page


def test_the_same_data_give_the_same_bytes() -> None:
    assert build_report(data()) == build_report(data())


def test_an_empty_day_says_what_to_land() -> None:
    empty = replace(data(), summary=summary_frame(ledger(0)), decisions=data().decisions.head(0), fans=())
    page = build_report(empty)
    assert "No decisions were made" in page and "land sales, stock and supply terms" in page


def test_pictures_hold_their_numbers() -> None:
    assert fan_chart(FAN).count("out of stock") == 1
    assert "order arrives" in fan_chart(FAN)
    assert "1,234" in bar_chart([("npq", 1234.4, "npq")])
    assert fan_chart(Fan("one step", [1.0], ["a", "b"], [([0.0], [2.0])], [1.0]))


def test_the_summary_is_a_table_a_manager_reads() -> None:
    text = summary_table(summary_frame(ledger(4)), Path("report.html"), 12.3)
    assert "retail: orders for stores" in text
    assert "20.0%" in text and "8.00" in text and "5.00%" in text
    assert "No decisions" in summary_table(summary_frame(ledger(0)), Path("r"), 1.0)


def test_a_saving_is_a_share_of_a_cost_and_never_minus_nothing() -> None:
    rows = pl.DataFrame(
        {
            "domain": ["d"] * 3,
            "kind": ["alike", "earned", "halved"],
            "expected_cost": [100.0001, -58.0, 5.0],
            "naive_cost": [100.0, -3.0, 10.0],
            "lower_bound": [99.0, -58.0, 5.0],
        }
    )
    summary = summary_frame(rows)
    assert summary["saving"].to_list() == [0.0, None, 0.5]
    lines = summary_table(summary, Path("report.html"), 1.0).splitlines()
    assert any("alike" in line and " 0.0%" in line for line in lines) and not any("-0.0%" in line for line in lines)
