{{ config(
    materialized='incremental',
    incremental_strategy='append',
    pre_hook="{{ remove_days('manufacturing', 'telemetry', 'measured_on') }}",
    post_hook="{{ note_days('manufacturing', 'telemetry') }}"
) }}

with readings as (
    select * from {{ ref('stg_manufacturing__telemetry') }}
    {% if is_incremental() %}
        where measured_on in ({{ days_to_build('manufacturing', 'telemetry', this) }})
    {% endif %}
),

hours as (
    select
        {{ hour_number('measured_at') }} as hour_number,
        machine_id,
        sensor,
        count(*) as readings,
        avg(value) as value,
        min(value) as lowest,
        max(value) as highest,
        stddev_samp(value) as spread,
        {{ value_at_last('value', 'measured_at') }} as last_value,
        max(measured_at) as last_at,
        60 - {{ distinct_small(minute_number('measured_at')) }} as gap_minutes,
        min({{ minutes_between('measured_at', 'received_at') }}) as delay_minutes
    from readings
    group by {{ hour_number('measured_at') }}, machine_id, sensor
),

final as (
    select
        {{ day_of(moment_of_hour('hour_number')) }} as measured_on,
        {{ moment_of_hour('hour_number') }} as hour_start,
        machine_id,
        sensor,
        readings,
        value,
        lowest,
        highest,
        spread,
        last_value,
        last_at,
        readings >= {{ var('stuck_readings', 10) }} and lowest = highest as is_stuck,
        gap_minutes,
        delay_minutes
    from hours
)

select * from final
