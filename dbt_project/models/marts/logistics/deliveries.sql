with final as (
    select
        delivery_id,
        depot_id,
        site_id,
        node_id,
        latitude,
        longitude,
        quantity,
        ready_at,
        due_at,
        service_minutes,
        coalesce(late_cost_per_minute, 0) as late_cost_per_minute,
        drop_cost,
        rebook_cost,
        ordered_at
    from {{ ref('stg_logistics__deliveries') }}
)

select * from final
