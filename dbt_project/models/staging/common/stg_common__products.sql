-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('common', 'products') }}
),

final as (
    select
        cast(product_id as varchar) as product_id,
        cast(name as varchar) as name,
        cast(family as varchar) as family,
        cast(unit_cost as double) as unit_cost,
        cast(unit_price as double) as unit_price,
        cast(holding_cost as double) as holding_cost,
        cast(weight_kg as double) as weight_kg,
        source_file,
        source_line
    from source
)

select * from final
