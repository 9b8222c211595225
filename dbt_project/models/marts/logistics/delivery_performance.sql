with trips as (
    select * from {{ ref('stg_logistics__trips') }}
),

deliveries as (
    select * from {{ ref('stg_logistics__deliveries') }}
),

drops as (
    select
        deliveries.depot_id,
        {{ day_of('trips.departed_at') }} as departed_on,
        trips.km,
        {{ minutes_between('trips.promised_at', 'trips.arrived_at') }} as late_minutes
    from trips
    left join deliveries on trips.delivery_id = deliveries.delivery_id
),

final as (
    select
        departed_on,
        coalesce(depot_id, 'unknown') as depot_id,
        count(*) as drops,
        sum(case when late_minutes <= 0 then 1 else 0 end) as drops_on_time,
        avg(case when late_minutes <= 0 then 1.0 else 0.0 end) as on_time_share,
        avg(greatest(late_minutes, 0)) as mean_late_minutes,
        sum(km) as km
    from drops
    group by departed_on, coalesce(depot_id, 'unknown')
)

select * from final
