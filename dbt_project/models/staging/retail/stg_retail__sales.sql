-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('retail', 'sales') }}
),

final as (
    select
        cast(sold_on as date) as sold_on,
        cast(site_id as varchar) as site_id,
        cast(product_id as varchar) as product_id,
        cast(quantity as double) as quantity,
        cast(price as double) as price,
        cast(promotion as boolean) as promotion,
        source_file,
        source_line
    from source
)

select * from final
