"""`python -m npq_assets.warehouse`: parses the dbt project, so that nobody waits for it later."""

from npq_assets.warehouse.dbt import prepare

print(prepare())
