"""Landing files and raw tables as assets: one step a domain, one asset and one balance check a table."""

from collections.abc import Iterator

import dagster as dg

from npq_assets.contracts import LANDING, Table, landing_tables
from npq_assets.ingestion import TableBalance, ingest
from npq_assets.orchestration import DAILY_FRESHNESS, RETRY, HomeResource

Result = dg.MaterializeResult[None] | dg.AssetCheckResult


def landing_key(table: Table) -> dg.AssetKey:
    """Key of the files of a table, which people and other systems write."""
    return dg.AssetKey(["landing", table.domain, table.name])


def raw_key(table: Table) -> dg.AssetKey:
    """Key of the accepted rows of a table."""
    return dg.AssetKey(["raw", table.domain, table.name])


def landing_specs(domain: str) -> list[dg.AssetSpec]:
    """The files of a domain as external assets: the graph begins where the company's own systems end."""
    return [
        dg.AssetSpec(
            landing_key(table),
            description=f"Files in `landing/{table.domain}/{table.name}/`. {table.description}",
            group_name=f"{domain}_landing",
            kinds={"file"},
        )
        for table in landing_tables(domain)
    ]


def raw_assets(domain: str) -> dg.AssetsDefinition:
    """The step that takes a domain's landing files in."""
    tables = landing_tables(domain)

    @dg.multi_asset(
        name=f"ingest_{domain}",
        specs=[
            dg.AssetSpec(
                raw_key(table),
                deps=[landing_key(table), *_referenced(table)],
                description=table.description,
                group_name=f"{domain}_raw",
                kinds={"python", "parquet"},
                owners=[f"team:{domain}"],
                freshness_policy=DAILY_FRESHNESS if table.time_column else None,
                metadata={"dagster/column_schema": _column_schema(table), "dagster/uri": f"raw/{domain}/{table.name}"},
            )
            for table in tables
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "balance",
                asset=raw_key(table),
                blocking=True,
                description="Rows landed = rows accepted + rows superseded + rows quarantined.",
            )
            for table in tables
        ]
        + [
            dg.AssetCheckSpec(
                "quarantine",
                asset=raw_key(table),
                description="No row and no file broke the contract; a warning, since what broke it was set aside.",
            )
            for table in tables
        ],
        can_subset=True,
        retry_policy=RETRY,
    )
    def step(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[Result]:
        selected = [table for table in tables if raw_key(table) in context.selected_asset_keys]
        balances = ingest(home.home, selected)
        for table in selected:
            yield from _events(table, balances[table.full_name])

    return step


def _referenced(table: Table) -> list[dg.AssetKey]:
    """Tables of other domains that foreign keys lead to: they must have been taken in before."""
    names = {column.references for column in table.columns if column.references}
    return [raw_key(LANDING[name]) for name in sorted(names) if LANDING[name].domain != table.domain]


def _column_schema(table: Table) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.kind.sql_type,
                description=column.description,
                constraints=dg.TableColumnConstraints(nullable=not column.required),
            )
            for column in table.columns
        ]
    )


def _events(table: Table, balance: TableBalance) -> Iterator[Result]:
    key = raw_key(table)
    yield dg.MaterializeResult(
        asset_key=key,
        metadata={
            "dagster/row_count": balance.accepted,
            "files": balance.files,
            "rows landed": balance.landed,
            "rows superseded": balance.superseded,
            "rows quarantined": balance.quarantined,
            "unreadable files": balance.unreadable_files,
            "files still being written": balance.waiting_files,
            "fingerprint": balance.fingerprint,
        },
    )
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name="balance",
        passed=balance.holds,
        metadata={
            "landed": balance.landed,
            "accepted": balance.accepted,
            "superseded": balance.superseded,
            "quarantined": balance.quarantined,
        },
    )
    yield dg.AssetCheckResult(
        asset_key=key,
        check_name="quarantine",
        passed=balance.quarantined == 0 and balance.unreadable_files == 0 and not balance.remarks,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"reasons": dict(balance.reasons), "remarks": list(balance.remarks)},
    )
