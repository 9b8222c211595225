"""dbt docs as one static page, and the asset that keeps it."""

from pathlib import Path

import dagster as dg

from npq_assets.orchestration import WAREHOUSE_POOL, HomeResource
from npq_assets.settings import Home
from npq_assets.storage import write_bytes
from npq_assets.warehouse import dbt

KEY = dg.AssetKey(["docs", "dbt_docs"])


def write_docs(home: Home) -> Path:
    """Writes dbt docs to `<home>/docs/dbt.html`, one page that opens without a server; returns its path."""
    dbt.Invocation(home, ("docs", "generate", "--static")).run()
    page = home.root / "docs" / "dbt.html"
    write_bytes((home.root / "warehouse" / "target" / "static_index.html").read_bytes(), page)
    return page


def docs_asset(parents: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """The page as an asset behind the models that it describes."""

    @dg.asset(
        key=KEY,
        deps=parents,
        group_name="documentation",
        kinds={"dbt", "html"},
        owners=["team:platform"],
        pool=WAREHOUSE_POOL,
        description="dbt docs: every table and column from landing file to decision, with lineage, as one static page.",
    )
    def dbt_docs(home: HomeResource) -> dg.MaterializeResult[None]:
        page = write_docs(home.home)
        return dg.MaterializeResult(metadata={"page": dg.MetadataValue.path(str(page)), "bytes": page.stat().st_size})

    return dbt_docs
