with final as (
    select
        machine_id,
        calendar_on,
        minutes,
        overtime_minutes,
        reason,
        maintenance_minutes,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__machine_calendar') }}
)

select * from final
