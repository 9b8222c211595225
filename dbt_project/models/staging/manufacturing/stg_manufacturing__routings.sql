-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'routings') }}
),

final as (
    select
        cast(product_id as varchar) as product_id,
        cast(operation as bigint) as operation,
        cast(machine_id as varchar) as machine_id,
        cast(minutes_per_unit as double) as minutes_per_unit,
        cast(setup_minutes as double) as setup_minutes,
        cast(setup_cost as double) as setup_cost,
        source_file,
        source_line
    from source
)

select * from final
