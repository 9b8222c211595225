-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('retail', 'offers') }}
),

final as (
    select
        cast(offer_id as varchar) as offer_id,
        cast(product_id as varchar) as product_id,
        cast(family as varchar) as family,
        cast(discount as double) as discount,
        cast(cost_per_use as double) as cost_per_use,
        cast(starts_on as date) as starts_on,
        cast(ends_on as date) as ends_on,
        cast(budget as double) as budget,
        cast(targeted as boolean) as targeted,
        source_file,
        source_line
    from source
)

select * from final
