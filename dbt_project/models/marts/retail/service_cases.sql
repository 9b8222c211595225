with requests as (
    select * from {{ ref('stg_retail__service_requests') }}
),

customer_keys as (
    select * from {{ ref('int_retail__customer_keys') }}
),

final as (
    select
        requests.request_id,
        customer_keys.customer_key,
        requests.opened_at,
        {{ day_of('requests.opened_at') }} as opened_on,
        {{ hour_of('requests.opened_at') }} as opened_hour,
        requests.topic,
        requests.delivery_id,
        requests.basket_id,
        requests.product_id,
        requests.closed_at,
        {{ minutes_between('requests.opened_at', 'requests.closed_at') }} / 60 as hours_to_close,
        requests.source_file,
        requests.source_line
    from requests
    left join customer_keys on requests.customer_id = customer_keys.customer_id
)

select * from final
