-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'measurements') }}
),

final as (
    select
        cast(unit_id as varchar) as unit_id,
        cast(feature as varchar) as feature,
        cast(value as double) as value,
        cast(measured_at as timestamp with time zone) as measured_at,
        cast(machine_id as varchar) as machine_id,
        cast(product_id as varchar) as product_id,
        source_file,
        source_line
    from source
)

select * from final
