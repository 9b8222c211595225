"""The mechanical part of the dbt project says what the contracts say."""

from npq_assets.contracts import LANDING
from npq_assets.warehouse import dbt
from npq_assets.warehouse.sources import files


def test_generated_files_are_in_step_with_the_contracts() -> None:
    for place, text in files().items():
        assert (dbt.PROJECT / place).read_text(encoding="utf-8") == text, (
            f"{place} is not what the contracts say; run python -m npq_assets.warehouse.sources"
        )
    found = {p.relative_to(dbt.PROJECT) for p in (dbt.PROJECT / "models/staging").rglob("*") if p.is_file()}
    assert found == set(files())


def test_every_model_and_column_is_described() -> None:
    manifest = dbt.manifest()
    for node in manifest["nodes"].values():
        if node["resource_type"] != "model":
            continue
        assert node["description"], node["name"]
        for column in node["columns"].values():
            assert column["description"], f"{node['name']}.{column['name']}"


def test_every_landing_table_is_a_source_with_its_asset_key() -> None:
    sources = {
        f"{s['source_name']}.{s['name']}": s["meta"]["dagster"]["asset_key"]
        for s in dbt.manifest()["sources"].values()
        if s["source_name"] not in ("decisions", "personal")
    }
    assert sources == {name: ["raw", *name.split(".")] for name in LANDING}


def test_the_manifest_knows_no_home() -> None:
    text = (dbt.TARGET / "manifest.json").read_text()
    assert "no-home" not in text.replace(str(dbt.TARGET), "")
