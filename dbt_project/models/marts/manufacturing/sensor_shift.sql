{%- set starts = var('shift_hours') -%}
with hours as (
    select
        *,
        {{ hour_of('hour_start') }} as hour_of_day
    from {{ ref('sensor_hour') }}
),

placed as (
    select
        *,
        -- Before the first shift of a day, the last one of the day before still works.
        case when hour_of_day < {{ starts[0] }} then {{ add_days('measured_on', -1) }} else measured_on end as shift_on,
        case
            {%- for start in starts | reverse %}
            when hour_of_day >= {{ start }} then {{ start }}
            {%- endfor %}
            else {{ starts[-1] }}
        end as shift_hour,
        case
            {%- for start in starts | reverse %}
            when hour_of_day >= {{ start }}
                then {{ ((starts[0] + 24 if loop.first else starts[starts | length - loop.index0]) - start) }}
            {%- endfor %}
            else {{ starts[0] + 24 - starts[-1] }}
        end as shift_length
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
        60 * max(shift_length) - sum(60 - gap_minutes) as gap_minutes,
        min(delay_minutes) as delay_minutes
    from averaged
    group by shift_on, shift_hour, machine_id, sensor
)

select * from final
