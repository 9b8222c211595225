-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'production_log') }}
),

final as (
    select
        cast(produced_on as date) as produced_on,
        cast(machine_id as varchar) as machine_id,
        cast(product_id as varchar) as product_id,
        cast(good_quantity as double) as good_quantity,
        cast(scrap_quantity as double) as scrap_quantity,
        cast(run_minutes as double) as run_minutes,
        cast(setup_minutes as double) as setup_minutes,
        cast(down_minutes as double) as down_minutes,
        cast(energy_kwh as double) as energy_kwh,
        cast(shift as varchar) as shift,
        source_file,
        source_line
    from source
)

select * from final
