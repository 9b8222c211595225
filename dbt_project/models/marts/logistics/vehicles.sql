with final as (
    select
        vehicle_id,
        depot_id,
        capacity,
        coalesce(fixed_cost, 0) as fixed_cost,
        cost_per_km,
        coalesce(cost_per_hour, 0) as cost_per_hour,
        shift_start,
        shift_end,
        max_km
    from {{ ref('stg_logistics__vehicles') }}
)

select * from final
