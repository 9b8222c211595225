-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'bills_of_material') }}
),

final as (
    select
        cast(product_id as varchar) as product_id,
        cast(component_id as varchar) as component_id,
        cast(quantity as double) as quantity,
        source_file,
        source_line
    from source
)

select * from final
