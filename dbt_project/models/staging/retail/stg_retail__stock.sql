-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('retail', 'stock') }}
),

final as (
    select
        cast(counted_on as date) as counted_on,
        cast(site_id as varchar) as site_id,
        cast(product_id as varchar) as product_id,
        cast(on_hand as double) as on_hand,
        source_file,
        source_line
    from source
)

select * from final
