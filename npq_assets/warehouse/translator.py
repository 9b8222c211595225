"""By what rule a dbt node gets its key, group and owner in Dagster: from its folder, never from a list of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import AssetKey
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings


def place(properties: Mapping[str, Any]) -> tuple[str, str]:
    """Layer and domain of a dbt node, from `models/<layer>/<domain>/…`."""
    folders = properties["fqn"][1:-1]
    return folders[0], folders[1]


class FolderTranslator(DagsterDbtTranslator):
    """Keys `<layer>/<domain>/<model>` and groups `<domain>_<layer>`; sources are the raw tables."""

    def __init__(self) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_asset_checks=True, enable_code_references=False))

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> AssetKey:
        """`raw/<domain>/<table>` for a source, the folder and name for a model."""
        if dbt_resource_props["resource_type"] == "source":
            declared = (dbt_resource_props.get("meta") or {}).get("dagster", {}).get("asset_key")
            return AssetKey(declared or ["raw", dbt_resource_props["source_name"], dbt_resource_props["name"]])
        layer, domain = place(dbt_resource_props)
        return AssetKey([layer, domain, dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """Domain, then layer, so that the groups of a domain stand together."""
        layer, domain = place(dbt_resource_props)
        return f"{domain}_{layer}"

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """The model's description without its SQL, which dbt docs show."""
        return str(dbt_resource_props.get("description") or "")
