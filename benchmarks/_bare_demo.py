"""The demo's work without Dagster and dbt, for `benchmarks.orchestration`: home and compiled SQL as arguments."""

from __future__ import annotations

import json
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import duckdb

from npq_assets.company.landing import write_sample
from npq_assets.contracts import DECISIONS
from npq_assets.evaluation.ledger import ledger_rows
from npq_assets.ingestion import ingest
from npq_assets.publishing import write_decisions
from npq_assets.reporting.report import ReportData, build_report
from npq_assets.reporting.summary import summary_frame
from npq_assets.retail.checks import judge_plan
from npq_assets.retail.demand import forecast_demand
from npq_assets.retail.inputs import read_inputs
from npq_assets.retail.output import save_forecast, save_plan
from npq_assets.retail.plan import plan_orders
from npq_assets.retail.showing import decisions_shown, fans
from npq_assets.settings import Home
from npq_assets.storage import write_text

ROOT = Path(__file__).resolve().parents[1]


def run_models(home: Home, compiled: Path) -> None:
    """Every model's SQL in dependency order, then the marts as Parquet."""
    manifest = json.loads((ROOT / "dbt_project/target/manifest.json").read_text())
    models = {
        key: node
        for key, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["fqn"][1] != "evaluation"
    }
    order = TopologicalSorter({key: {p for p in n["depends_on"]["nodes"] if p in models} for key, n in models.items()})
    home.warehouse.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(home.warehouse)) as connection:
        connection.execute("set threads = 2")
        database = connection.execute("select current_database()").fetchone()
        for key in order.static_order():
            node = models[key]
            sql = next(compiled.rglob(node["path"])).read_text().replace(str(compiled.parents[2]), str(home.root))
            kind = "view" if node["config"]["materialized"] == "view" else "table"
            connection.execute(f'create schema if not exists "{node["schema"]}"')
            connection.execute(f'create or replace {kind} "{node["schema"]}"."{node["alias"]}" as {sql}')
            if kind == "table":
                place = home.mart(node["fqn"][2], node["name"])
                place.parent.mkdir(parents=True, exist_ok=True)
                connection.execute(f'copy "{node["schema"]}"."{node["alias"]}" to \'{place}\' (format parquet)')
        assert database


def main() -> None:
    """The whole way, function by function."""
    home = Home.at(sys.argv[1])
    as_of = write_sample(home.landing).as_of
    ingest(home)
    run_models(home, Path(sys.argv[2]))
    inputs = read_inputs(home, as_of)
    forecast = forecast_demand(inputs, home)
    save_forecast(home, as_of, forecast, "")
    plan = plan_orders(inputs, forecast)
    save_plan(home, as_of, plan, "")
    assert all(verdict.passed for verdict in judge_plan(plan.orders, inputs) if verdict.blocking)
    write_decisions(home, DECISIONS["retail.replenishment_orders"], as_of, plan.orders)
    rows = ledger_rows("retail", "replenishment_orders", plan.orders, plan.facts)
    write_decisions(home, DECISIONS["all.ledger"], as_of, rows)
    page = ReportData(
        as_of,
        "bare",
        "day",
        summary_frame(rows),
        decisions_shown(plan.orders),
        fans=fans(home, as_of, plan.orders, 24, 56),
    )
    write_text(build_report(page), home.report(as_of))


if __name__ == "__main__":
    main()
