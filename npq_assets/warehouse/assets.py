"""dbt models as assets: one step a domain, and one for the evaluation that follows the ledger."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import dbt_assets
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

from npq_assets.orchestration import RETRY, WAREHOUSE_POOL, HomeResource
from npq_assets.warehouse import dbt
from npq_assets.warehouse.translator import FolderTranslator, place

TRANSLATOR = FolderTranslator()
_EXPORTED_LAYERS = {"marts", "evaluation"}


def domain_models(domain: str) -> dg.AssetsDefinition:
    """Staging, intermediate and marts of a domain."""
    present = {place(node) for node in dbt.manifest()["nodes"].values() if node["resource_type"] == "model"}
    layers = [layer for layer in ("staging", "intermediate", "marts") if (layer, domain) in present]
    return _step(f"transform_{domain}", " ".join(f"fqn:npq.{layer}.{domain}" for layer in layers))


def evaluation_models(domain: str) -> dg.AssetsDefinition:
    """The evaluation of a domain's past decisions."""
    return _step(f"evaluate_{domain}", f"fqn:npq.evaluation.{domain}")


def _step(name: str, select: str) -> dg.AssetsDefinition:
    @dbt_assets(
        manifest=dbt.manifest(),
        select=select,
        name=name,
        dagster_dbt_translator=TRANSLATOR,
        pool=WAREHOUSE_POOL,
        retry_policy=RETRY,
    )
    def step(context: dg.AssetExecutionContext, home: HomeResource) -> Iterator[Any]:
        yield from build(context, home, select)

    return step


def build(context: dg.AssetExecutionContext, home: HomeResource, select: str) -> Iterator[Any]:
    """Builds the selected models of a step, hands dbt's events to Dagster as they come, then exports the marts."""
    manifest = dbt.manifest()
    chosen = (
        [manifest["nodes"][unique_id] for unique_id in _selected_models(context, manifest)]
        if context.is_subset
        else [node for node in manifest["nodes"].values() if _matches(node, select)]
    )
    invocation = dbt.Invocation(
        home.home,
        ("build",),
        tuple(f"fqn:{'.'.join(node['fqn'])}" for node in chosen) if context.is_subset else tuple(select.split()),
        variables=(("period", home.home.settings.period or "none"),),
    )
    for event in invocation.stream():
        message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
        yield from message.to_default_asset_events(manifest, TRANSLATOR, context)
    rows = dbt.export_marts(home.home, exported(chosen))
    if rows:
        context.log.info("Exported " + ", ".join(f"{name} ({count:,} rows)" for name, count in rows.items()))


def exported(nodes: list[Mapping[str, Any]]) -> dict[str, str]:
    """Relation by `domain/model` of the models whose rows Python reads."""
    found = {}
    for node in nodes:
        if node["resource_type"] == "model" and place(node)[0] in _EXPORTED_LAYERS:
            found[f"{place(node)[1]}/{node['name']}"] = f'"{node["schema"]}"."{node["alias"]}"'
    return found


def _matches(node: Mapping[str, Any], select: str) -> bool:
    folders = [tuple(word.removeprefix("fqn:").split(".")) for word in select.split()]
    return node["resource_type"] == "model" and any(tuple(node["fqn"][: len(f)]) == f for f in folders)


def _selected_models(context: dg.AssetExecutionContext, manifest: Mapping[str, Any]) -> list[str]:
    by_key = {
        TRANSLATOR.get_asset_key(node): unique_id
        for unique_id, node in manifest["nodes"].items()
        if node["resource_type"] == "model"
    }
    return sorted(by_key[key] for key in context.selected_asset_keys if key in by_key)


__all__ = ["TRANSLATOR", "build", "domain_models", "evaluation_models", "exported"]
