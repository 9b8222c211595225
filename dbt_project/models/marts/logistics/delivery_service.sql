with outcomes as (
    select * from {{ ref('delivery_outcomes') }}
),

-- A day is judged once something of it was driven; deliveries still to come are not missing.
driven as (
    select
        depot_id,
        deliver_on
    from outcomes
    group by depot_id, deliver_on
    having sum(delivered) > 0
),

final as (
    select
        outcomes.deliver_on,
        outcomes.depot_id,
        count(*) as deliveries,
        sum(outcomes.delivered) as delivered,
        sum(outcomes.on_time_in_full) as on_time_in_full,
        sum(outcomes.on_time_in_full) / cast(count(*) as double) as on_time_in_full_share,
        avg(outcomes.late_minutes) as mean_late_minutes,
        sum(outcomes.service_cost) as service_cost
    from outcomes
    inner join driven on outcomes.depot_id = driven.depot_id and outcomes.deliver_on = driven.deliver_on
    group by outcomes.deliver_on, outcomes.depot_id
)

select * from final
