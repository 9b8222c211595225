-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'machines') }}
),

final as (
    select
        cast(machine_id as varchar) as machine_id,
        cast(site_id as varchar) as site_id,
        cast(model as varchar) as model,
        cast(installed_on as date) as installed_on,
        cast(minutes_per_day as double) as minutes_per_day,
        cast(cost_per_minute as double) as cost_per_minute,
        cast(overtime_minutes_per_day as double) as overtime_minutes_per_day,
        cast(overtime_cost_per_minute as double) as overtime_cost_per_minute,
        cast(line as varchar) as line,
        cast(power_kw as double) as power_kw,
        source_file,
        source_line
    from source
)

select * from final
