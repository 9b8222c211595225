-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'process_settings') }}
),

final as (
    select
        cast(machine_id as varchar) as machine_id,
        cast(setting as varchar) as setting,
        cast(low as double) as low,
        cast(high as double) as high,
        cast(current as double) as current,
        cast(cost_per_unit_change as double) as cost_per_unit_change,
        cast(ramp_limit as double) as ramp_limit,
        cast(scrap_sign as bigint) as scrap_sign,
        cast(energy_sign as bigint) as energy_sign,
        cast(minutes_sign as bigint) as minutes_sign,
        source_file,
        source_line
    from source
)

select * from final
