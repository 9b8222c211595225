"""The ledger as an asset: the one account of all systems' decisions."""

from collections import Counter
from datetime import date

import dagster as dg
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.orchestration import AS_OF, RETRY, HomeResource, as_of_of, preview
from npq_assets.publishing import read_decisions, write_decisions
from npq_assets.settings import Home

LEDGER = DECISIONS["all.ledger"]
KEY = dg.AssetKey(["decisions", "all", "ledger"])


def ledger_asset(decisions: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """The ledger behind the decisions of all systems."""

    @dg.asset(
        key=KEY,
        deps=decisions,
        partitions_def=AS_OF,
        group_name="ledger",
        kinds={"python", "parquet"},
        owners=["team:platform"],
        retry_policy=RETRY,
        description=LEDGER.description,
    )
    def ledger(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult[None]:
        """Opens the day's accounts and settles earlier ones whose outcome has landed."""
        from npq_assets.logistics.outcome import settle_accounts as settle_deliveries
        from npq_assets.logistics.sourcing_outcome import settle_sourcing
        from npq_assets.manufacturing.equipment_outcome import settle_maintenance
        from npq_assets.manufacturing.outcome import settle_plans
        from npq_assets.manufacturing.quality_outcome import settle_quality
        from npq_assets.retail.outcome import settle_accounts, settle_overrides
        from npq_assets.retail.service_outcome import settle_staffing

        day = as_of_of(context)
        rows = open_accounts(home.home, day)
        settled: Counter[date] = Counter(settle_accounts(home.home, day))
        settled.update(settle_deliveries(home.home, day))
        settled.update(settle_sourcing(home.home, day))
        settled.update(settle_staffing(home.home, day))
        settled.update(settle_plans(home.home, day))
        settled.update(settle_maintenance(home.home, day))
        settled.update(settle_quality(home.home, day))
        overrides = settle_overrides(home.home, day)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": rows.height,
                "expected cost": float(rows["expected_cost"].sum()),
                "naive cost": float(rows["naive_cost"].sum()),
                "settled now": sum(settled.values()),
                "settled days": [str(d) for d in settled],
                "overrides settled": overrides,
                "preview": preview(rows.drop("decision_id", "input_snapshot")),
            }
        )

    return ledger


def open_accounts(home: Home, day: object) -> pl.DataFrame:
    """Writes the ledger rows of a day's decisions, keeping outcomes that are known of the same decisions."""
    from npq_assets.evaluation.ledger import OUTCOME, ledger_rows, with_basis
    from npq_assets.logistics.output import logistics_accounts
    from npq_assets.manufacturing.equipment_output import equipment_accounts
    from npq_assets.manufacturing.output import accounts_of as manufacturing_accounts
    from npq_assets.retail.customer_output import customer_accounts
    from npq_assets.retail.output import load_plan

    assert isinstance(day, date)
    plan = load_plan(home, day)
    accounts = [ledger_rows("retail", "replenishment_orders", *plan)] if plan is not None else []
    accounts += customer_accounts(home, day)
    accounts += logistics_accounts(home, day)
    accounts += manufacturing_accounts(home, day)
    accounts += equipment_accounts(home, day)
    if not accounts:
        return LEDGER.empty()
    rows = pl.concat(accounts, how="vertical_relaxed")
    known = with_basis(read_decisions(home, LEDGER, day)).select("decision_id", *OUTCOME)
    rows = rows.drop(OUTCOME).join(known, on="decision_id", how="left")
    write_decisions(home, LEDGER, day, rows)
    return rows
