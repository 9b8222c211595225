-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('retail', 'supply_terms') }}
),

final as (
    select
        cast(site_id as varchar) as site_id,
        cast(product_id as varchar) as product_id,
        cast(lead_time_periods as bigint) as lead_time_periods,
        cast(holding_cost as double) as holding_cost,
        cast(shortage_cost as double) as shortage_cost,
        cast(pack_size as double) as pack_size,
        cast(min_order as double) as min_order,
        cast(supplier_id as varchar) as supplier_id,
        source_file,
        source_line
    from source
)

select * from final
