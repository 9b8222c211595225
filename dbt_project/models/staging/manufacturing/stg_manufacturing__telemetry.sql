-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'telemetry') }}
),

final as (
    select
        cast(measured_at as timestamp with time zone) as measured_at,
        cast(machine_id as varchar) as machine_id,
        cast(sensor as varchar) as sensor,
        cast(value as double) as value,
        source_file,
        source_line
    from source
)

select * from final
