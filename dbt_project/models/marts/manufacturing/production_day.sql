with production as (
    select * from {{ ref('stg_manufacturing__production_log') }}
),

machines as (
    select * from {{ ref('machines') }}
),

routings as (
    select
        product_id,
        machine_id,
        max(operation) as operation,
        min(minutes_per_unit) as minutes_per_unit
    from {{ ref('stg_manufacturing__routings') }}
    group by product_id, machine_id
),

logged as (
    select
        production.*,
        coalesce(routings.operation, 1) as operation,
        routings.minutes_per_unit
    from production
    left join routings
        on production.product_id = routings.product_id and production.machine_id = routings.machine_id
),

final as (
    select
        logged.produced_on,
        logged.machine_id,
        machines.line,
        logged.product_id,
        coalesce(logged.shift, '') as shift,
        logged.operation,
        -- A unit counts as output once, at the last operation that the log knows of its product.
        logged.operation = max(logged.operation) over (partition by logged.product_id) as is_output,
        logged.good_quantity,
        logged.scrap_quantity,
        logged.run_minutes,
        coalesce(logged.setup_minutes, 0) as setup_minutes,
        case when coalesce(logged.setup_minutes, 0) > 0 then 1 else 0 end as setups,
        logged.down_minutes,
        logged.energy_kwh,
        (logged.good_quantity + logged.scrap_quantity) * logged.minutes_per_unit as standard_minutes
    from logged
    left join machines on logged.machine_id = machines.machine_id
)

select * from final
