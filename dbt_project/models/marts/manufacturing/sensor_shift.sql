with hours as (
    select
        *,
        {{ hour_of('hour_start') }} as hour_of_day
    from {{ ref('sensor_hour') }}
),

placed as (
    select
        *,
        case
            when {{ before_first_shift('hour_of_day') }} then {{ add_days('measured_on', -1) }}
            else measured_on
        end as shift_on,
        {{ shift_hour('hour_of_day') }} as shift_hour
    from hours
),

averaged as (
    select
        *,
        {{ mean_of_period('shift_on, shift_hour, machine_id, sensor') }} as mean
    from placed
),

final as (
    select
        shift_on,
        shift_hour,
        machine_id,
        sensor,
        {{ pooled_readings() }},
        60 * {{ shift_length('shift_hour') }} - sum(60 - gap_minutes) as gap_minutes,
        min(delay_minutes) as delay_minutes
    from averaged
    group by shift_on, shift_hour, machine_id, sensor
)

select * from final
