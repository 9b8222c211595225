-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'machine_calendar') }}
),

final as (
    select
        cast(machine_id as varchar) as machine_id,
        cast(calendar_on as date) as calendar_on,
        cast(minutes as double) as minutes,
        cast(overtime_minutes as double) as overtime_minutes,
        cast(reason as varchar) as reason,
        cast(maintenance_minutes as double) as maintenance_minutes,
        source_file,
        source_line
    from source
)

select * from final
