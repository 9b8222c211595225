with vehicles as (
    select * from {{ ref('stg_logistics__vehicles') }}
),

final as (
    select
        depot_id,
        count(*) as vehicles,
        sum(capacity) as capacity,
        avg(cost_per_km) as mean_cost_per_km,
        sum(coalesce(fixed_cost, 0)) as fixed_cost
    from vehicles
    group by depot_id
)

select * from final
