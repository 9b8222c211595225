with readings as (
    select * from {{ ref('stg_manufacturing__telemetry') }}
),

final as (
    select
        {{ day_of('measured_at') }} as measured_on,
        machine_id,
        sensor,
        count(*) as readings,
        avg(value) as value,
        min(value) as lowest,
        max(value) as highest
    from readings
    group by {{ day_of('measured_at') }}, machine_id, sensor
)

select * from final
