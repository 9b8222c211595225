with replacements as (
    select
        machine_id,
        component,
        {{ day_of('replaced_at') }} as replaced_on,
        cause,
        lead({{ day_of('replaced_at') }}) over (
            partition by machine_id, component
            order by replaced_at
        ) as next_on,
        lead(cause) over (
            partition by machine_id, component
            order by replaced_at
        ) as next_cause,
        row_number() over (
            partition by machine_id, component
            order by replaced_at
        ) as part_number
    from {{ ref('stg_manufacturing__component_replacements') }}
),

lives as (
    -- The part that was in use when the log begins: nobody knows since when.
    select
        machine_id,
        component,
        0 as part_number,
        cast(null as date) as started_on,
        replaced_on as ended_on,
        cause as ended_by
    from replacements
    where part_number = 1

    union all

    select
        machine_id,
        component,
        part_number,
        replaced_on as started_on,
        next_on as ended_on,
        next_cause as ended_by
    from replacements
),

final as (
    select
        machine_id,
        component,
        part_number,
        started_on,
        ended_on,
        ended_by,
        {{ days_between('started_on', 'ended_on') }} as days
    from lives
)

select * from final
