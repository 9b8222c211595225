with legs as (
    select * from {{ ref('legs') }}
),

vehicles as (
    select * from {{ ref('vehicles') }}
),

-- The way home is not in the trips; it counts as long as the way to the first stop.
tours as (
    select
        vehicle_id,
        depot_id,
        departed_at,
        count(*) as drops,
        sum(quantity) as quantity,
        -- A tour of which one leg's distance is missing has no distance, rather than a short one.
        case
            when count(km) = count(*) then sum(km) + max(case when stop = 1 then km else 0 end)
        end as km,
        {{ minutes_between('departed_at', 'max(left_at)') }}
        + max(case when stop = 1 then drive_minutes else 0 end) as minutes
    from legs
    group by vehicle_id, depot_id, departed_at
),

final as (
    select
        tours.vehicle_id,
        tours.depot_id,
        {{ day_of('tours.departed_at') }} as departed_on,
        tours.departed_at,
        tours.drops,
        tours.quantity,
        tours.km,
        tours.minutes,
        vehicles.fixed_cost + vehicles.cost_per_km * tours.km + vehicles.cost_per_hour * tours.minutes / 60.0 as cost,
        (vehicles.fixed_cost + vehicles.cost_per_km * tours.km + vehicles.cost_per_hour * tours.minutes / 60.0)
        / tours.drops as cost_per_drop,
        case when tours.quantity > 0 then tours.km / tours.quantity end as km_per_unit,
        case when vehicles.capacity > 0 then tours.quantity / vehicles.capacity end as load_factor
    from tours
    left join vehicles on tours.vehicle_id = vehicles.vehicle_id
)

select * from final
