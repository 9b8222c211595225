-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'component_receipts') }}
),

final as (
    select
        cast(product_id as varchar) as product_id,
        cast(arrives_on as date) as arrives_on,
        cast(quantity as double) as quantity,
        cast(ordered_on as date) as ordered_on,
        source_file,
        source_line
    from source
)

select * from final
