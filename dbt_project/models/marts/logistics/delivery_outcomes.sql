with deliveries as (
    select * from {{ ref('deliveries') }}
),

legs as (
    select * from {{ ref('legs') }}
),

final as (
    select
        deliveries.delivery_id,
        deliveries.depot_id,
        deliveries.site_id,
        {{ day_of('deliveries.ready_at') }} as deliver_on,
        deliveries.quantity,
        deliveries.due_at,
        legs.vehicle_id,
        legs.arrived_at,
        legs.late_minutes,
        case when legs.arrived_at is null then 0 else 1 end as delivered,
        case when legs.arrived_at <= deliveries.due_at then 1 else 0 end as on_time_in_full,
        case
            when legs.arrived_at is null then coalesce(deliveries.drop_cost, 0)
            else legs.late_minutes * deliveries.late_cost_per_minute
        end as service_cost
    from deliveries
    left join legs on deliveries.delivery_id = legs.delivery_id
)

select * from final
