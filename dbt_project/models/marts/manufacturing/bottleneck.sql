with production as (
    select * from {{ ref('production_day') }}
),

machines as (
    select * from {{ ref('machines') }}
),

calendar as (
    select * from {{ ref('machine_calendar') }}
),

bounds as (
    select
        min(produced_on) as first_on,
        max(produced_on) as last_on
    from production
),

days as (
    select cast(day_on as date) as day_on
    from bounds, {{ date_series('bounds.first_on', 'bounds.last_on', 1) }} as t (day_on)
),

open_time as (
    select
        machines.machine_id,
        machines.line,
        {{ monday_of('days.day_on') }} as week_start,
        sum(coalesce(calendar.minutes, machines.minutes_per_day)) as regular_minutes
    from machines
    cross join days
    left join calendar on machines.machine_id = calendar.machine_id and days.day_on = calendar.calendar_on
    group by machines.machine_id, machines.line, {{ monday_of('days.day_on') }}
),

used as (
    select
        machine_id,
        {{ monday_of('produced_on') }} as week_start,
        sum(run_minutes) as run_minutes,
        sum(setup_minutes) as setup_minutes,
        sum(down_minutes) as down_minutes
    from production
    group by machine_id, {{ monday_of('produced_on') }}
),

loads as (
    select
        open_time.machine_id,
        open_time.line,
        open_time.week_start,
        open_time.regular_minutes,
        coalesce(used.run_minutes, 0) as run_minutes,
        coalesce(used.setup_minutes, 0) as setup_minutes,
        coalesce(used.down_minutes, 0) as down_minutes,
        case
            when open_time.regular_minutes > 0
                then
                    (coalesce(used.run_minutes, 0) + coalesce(used.setup_minutes, 0) + coalesce(used.down_minutes, 0))
                    / open_time.regular_minutes
        end as load_share
    from open_time
    left join used on open_time.machine_id = used.machine_id and open_time.week_start = used.week_start
),

final as (
    select
        machine_id,
        line,
        week_start,
        regular_minutes,
        run_minutes,
        setup_minutes,
        down_minutes,
        load_share,
        rank() over (partition by week_start order by load_share desc nulls last, machine_id asc) as load_rank,
        rank() over (partition by week_start order by load_share desc nulls last, machine_id asc) = 1 as is_bottleneck
    from loads
)

select * from final
