with production as (
    select * from {{ ref('stg_manufacturing__production_log') }}
),

machines as (
    select * from {{ ref('stg_manufacturing__machines') }}
),

routings as (
    select
        product_id,
        machine_id,
        min(minutes_per_unit) as minutes_per_unit
    from {{ ref('stg_manufacturing__routings') }}
    group by product_id, machine_id
),

days as (
    select
        production.produced_on,
        production.machine_id,
        sum(production.good_quantity) as good_quantity,
        sum(production.scrap_quantity) as scrap_quantity,
        sum(production.run_minutes) as run_minutes,
        sum(coalesce(production.setup_minutes, 0)) as setup_minutes,
        sum(production.down_minutes) as down_minutes,
        sum(production.energy_kwh) as energy_kwh,
        -- What has no meter or no routing is left out of the ratio on both sides: it would count as free, or as slow.
        sum(case when production.energy_kwh is not null then production.good_quantity else 0 end) as metered_quantity,
        sum(case when routings.minutes_per_unit is not null then production.run_minutes else 0 end) as timed_minutes,
        sum((production.good_quantity + production.scrap_quantity) * routings.minutes_per_unit) as standard_minutes
    from production
    left join routings
        on production.product_id = routings.product_id and production.machine_id = routings.machine_id
    group by production.produced_on, production.machine_id
),

rates as (
    select
        days.*,
        machines.minutes_per_day,
        case
            when days.run_minutes + days.setup_minutes + days.down_minutes > 0
                then days.run_minutes / (days.run_minutes + days.setup_minutes + days.down_minutes)
        end as availability,
        case when days.timed_minutes > 0 then least(days.standard_minutes / days.timed_minutes, 1) end as performance,
        case
            when days.good_quantity + days.scrap_quantity > 0
                then days.good_quantity / (days.good_quantity + days.scrap_quantity)
        end as quality,
        case when days.metered_quantity > 0 then days.energy_kwh / days.metered_quantity end as energy_per_good_unit
    from days
    left join machines on days.machine_id = machines.machine_id
),

final as (
    select
        produced_on,
        machine_id,
        good_quantity,
        scrap_quantity,
        run_minutes,
        setup_minutes,
        down_minutes,
        energy_kwh,
        minutes_per_day,
        availability,
        performance,
        quality,
        availability * performance * quality as oee,
        energy_per_good_unit
    from rates
)

select * from final
