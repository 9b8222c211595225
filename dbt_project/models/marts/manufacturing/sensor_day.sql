with hours as (
    select
        *,
        {{ mean_of_period('measured_on, machine_id, sensor') }} as mean
    from {{ ref('sensor_hour') }}
),

final as (
    select
        measured_on,
        machine_id,
        sensor,
        {{ pooled_readings() }},
        24 * 60 - sum(60 - gap_minutes) as gap_minutes,
        min(delay_minutes) as delay_minutes
    from hours
    group by measured_on, machine_id, sensor
)

select * from final
