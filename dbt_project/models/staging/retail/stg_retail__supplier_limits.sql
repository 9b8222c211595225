-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('retail', 'supplier_limits') }}
),

final as (
    select
        cast(supplier_id as varchar) as supplier_id,
        cast(arrives_on as date) as arrives_on,
        cast(max_quantity as double) as max_quantity,
        cast(max_spend as double) as max_spend,
        source_file,
        source_line
    from source
)

select * from final
