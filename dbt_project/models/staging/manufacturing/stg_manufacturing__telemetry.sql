-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw_by_day('manufacturing', 'telemetry', 'measured_on') }}
),

final as (
    select
        cast(measured_at as timestamp with time zone) as measured_at,
        cast(machine_id as varchar) as machine_id,
        cast(sensor as varchar) as sensor,
        cast(value as double) as value,
        cast(received_at as timestamp with time zone) as received_at,
        source_file,
        source_line,
        measured_on
    from source
)

select * from final
