-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'trips') }}
),

final as (
    select
        cast(delivery_id as varchar) as delivery_id,
        cast(vehicle_id as varchar) as vehicle_id,
        cast(departed_at as timestamp with time zone) as departed_at,
        cast(promised_at as timestamp with time zone) as promised_at,
        cast(arrived_at as timestamp with time zone) as arrived_at,
        cast(km as double) as km,
        cast(agreed_until as timestamp with time zone) as agreed_until,
        cast(delivered_quantity as double) as delivered_quantity,
        source_file,
        source_line
    from source
)

select * from final
