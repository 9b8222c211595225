with trips as (
    select * from {{ ref('stg_logistics__trips') }}
),

deliveries as (
    select * from {{ ref('deliveries') }}
),

-- A stop is left when its service is over, which begins no sooner than its window.
stops as (
    select
        trips.delivery_id,
        trips.vehicle_id,
        trips.departed_at,
        trips.promised_at,
        trips.arrived_at,
        trips.km,
        trips.agreed_until,
        trips.delivered_quantity,
        deliveries.depot_id,
        deliveries.quantity,
        deliveries.ready_at,
        deliveries.due_at,
        deliveries.service_minutes,
        {{ add_minutes('greatest(trips.arrived_at, coalesce(deliveries.ready_at, trips.arrived_at))',
                       'coalesce(deliveries.service_minutes, 0)') }} as left_at
    from trips
    inner join deliveries on trips.delivery_id = deliveries.delivery_id
),

ordered as (
    select
        *,
        row_number() over tour as stop,
        lag(delivery_id) over tour as previous_delivery_id,
        lag(left_at) over tour as previous_left_at
    from stops
    window tour as (partition by vehicle_id, departed_at order by arrived_at, delivery_id)
),

final as (
    select
        delivery_id,
        vehicle_id,
        depot_id,
        stop,
        previous_delivery_id,
        departed_at,
        coalesce(previous_left_at, departed_at) as leg_started_at,
        arrived_at,
        left_at,
        promised_at,
        ready_at,
        due_at,
        agreed_until,
        service_minutes,
        quantity,
        coalesce(delivered_quantity, quantity) as delivered_quantity,
        km,
        {{ minutes_between('coalesce(previous_left_at, departed_at)', 'arrived_at') }} as drive_minutes,
        greatest({{ minutes_between('greatest(due_at, coalesce(agreed_until, due_at))', 'arrived_at') }}, 0) as late_minutes
    from ordered
)

select * from final
