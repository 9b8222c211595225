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
        cast(setup_family as varchar) as setup_family,
        cast(family_setup_minutes as double) as family_setup_minutes,
        cast(family_setup_cost as double) as family_setup_cost,
        cast(minimum_lot as double) as minimum_lot,
        cast(transport_batch as double) as transport_batch,
        source_file,
        source_line
    from source
)

select * from final
