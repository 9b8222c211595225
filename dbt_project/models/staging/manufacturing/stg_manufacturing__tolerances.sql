-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'tolerances') }}
),

final as (
    select
        cast(feature as varchar) as feature,
        cast(product_id as varchar) as product_id,
        cast(lower as double) as lower,
        cast(upper as double) as upper,
        source_file,
        source_line
    from source
)

select * from final
