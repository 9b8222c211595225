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
        case when legs.late_minutes <= 0 then 1 else 0 end as on_time,
        case when legs.delivered_quantity >= 0.999 * deliveries.quantity then 1 else 0 end as in_full,
        case
            when legs.late_minutes <= 0 and legs.delivered_quantity >= 0.999 * deliveries.quantity then 1 else 0
        end as on_time_in_full,
        case
            -- What had to be made and was not has no price: it is not free.
            when legs.arrived_at is null then deliveries.drop_cost
            else
                legs.late_minutes * deliveries.late_cost_per_minute
                -- What was not handed over costs its share of the drop.
                + coalesce(deliveries.drop_cost, 0)
                * case
                    when deliveries.quantity > 0
                        then greatest(1 - legs.delivered_quantity / deliveries.quantity, 0)
                    else 0
                end
        end as service_cost
    from deliveries
    left join legs on deliveries.delivery_id = legs.delivery_id
)

select * from final
