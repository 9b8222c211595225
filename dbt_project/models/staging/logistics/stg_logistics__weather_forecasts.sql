-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'weather_forecasts') }}
),

final as (
    select
        cast(region as varchar) as region,
        cast(valid_at as timestamp with time zone) as valid_at,
        cast(issued_at as timestamp with time zone) as issued_at,
        cast(temperature as double) as temperature,
        cast(wind as double) as wind,
        cast(rain as double) as rain,
        cast(visibility as double) as visibility,
        source_file,
        source_line
    from source
)

select * from final
