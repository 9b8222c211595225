-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'quality_costs') }}
),

final as (
    select
        cast(product_id as varchar) as product_id,
        cast(inspection_cost as double) as inspection_cost,
        cast(miss_cost as double) as miss_cost,
        source_file,
        source_line
    from source
)

select * from final
