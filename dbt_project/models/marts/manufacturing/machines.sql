with machines as (
    select * from {{ ref('stg_manufacturing__machines') }}
),

final as (
    select
        machine_id,
        site_id,
        coalesce(line, model, site_id) as line,
        minutes_per_day,
        coalesce(cost_per_minute, 0) as cost_per_minute,
        coalesce(overtime_minutes_per_day, 0) as overtime_minutes_per_day,
        coalesce(overtime_cost_per_minute, cost_per_minute, 0) as overtime_cost_per_minute,
        power_kw,
        installed_on,
        source_file,
        source_line
    from machines
)

select * from final
