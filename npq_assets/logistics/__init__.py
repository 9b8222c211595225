"""Smart logistics: from roads, vehicles and drops to routes, risks and deliveries.

So far its tables are taken in and described (`dbt_project/models/*/logistics`); it decides nothing yet.
"""

from __future__ import annotations

import dagster as dg


def system_assets() -> list[dg.AssetsDefinition]:
    """The system's own assets behind its marts."""
    return []


def system_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of those assets."""
    return []


def system_decisions() -> list[dg.AssetKey]:
    """Keys of its decision tables, which the ledger accounts for."""
    return []
