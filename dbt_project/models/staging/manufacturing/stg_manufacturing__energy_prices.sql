-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'energy_prices') }}
),

final as (
    select
        cast(valid_at as timestamp with time zone) as valid_at,
        cast(price_per_kwh as double) as price_per_kwh,
        source_file,
        source_line
    from source
)

select * from final
