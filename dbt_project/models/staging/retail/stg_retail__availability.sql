-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('retail', 'availability') }}
),

final as (
    select
        cast(sold_on as date) as sold_on,
        cast(site_id as varchar) as site_id,
        cast(product_id as varchar) as product_id,
        cast(in_stock as boolean) as in_stock,
        source_file,
        source_line
    from source
)

select * from final
