with final as (
    select
        machine_id,
        setting,
        low,
        high,
        current,
        cost_per_unit_change,
        ramp_limit,
        scrap_sign,
        energy_sign,
        minutes_sign,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__process_settings') }}
)

select * from final
