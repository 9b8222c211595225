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

priced as (
    select
        tours.*,
        {{ day_of('tours.departed_at') }} as departed_on,
        vehicles.capacity,
        -- The fixed cost is that of a day, however many tours the vehicle drives on it.
        vehicles.fixed_cost / count(*) over (partition by tours.vehicle_id, {{ day_of('tours.departed_at') }})
        + vehicles.cost_per_km * tours.km
        + vehicles.cost_per_hour * tours.minutes / 60.0 as cost
    from tours
    left join vehicles on tours.vehicle_id = vehicles.vehicle_id
),

final as (
    select
        vehicle_id,
        depot_id,
        departed_on,
        departed_at,
        drops,
        quantity,
        km,
        minutes,
        cost,
        cost / drops as cost_per_drop,
        case when quantity > 0 then km / quantity end as km_per_unit,
        case when capacity > 0 then quantity / capacity end as load_factor
    from priced
)

select * from final
