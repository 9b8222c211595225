with deliveries as (
    select * from {{ ref('stg_logistics__deliveries') }}
),

trips as (
    select * from {{ ref('stg_logistics__trips') }}
),

customer_keys as (
    select * from {{ ref('int_retail__customer_keys') }}
),

final as (
    select
        deliveries.delivery_id,
        customer_keys.customer_key,
        deliveries.due_at,
        trips.departed_at,
        trips.promised_at,
        trips.arrived_at,
        deliveries.source_file,
        deliveries.source_line,
        trips.source_file as trip_file,
        trips.source_line as trip_line
    from deliveries
    inner join customer_keys on deliveries.customer_id = customer_keys.customer_id
    left join trips on deliveries.delivery_id = trips.delivery_id
)

select * from final
