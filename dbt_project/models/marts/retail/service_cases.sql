with requests as (
    select * from {{ ref('stg_retail__service_requests') }}
),

customer_keys as (
    select * from {{ ref('int_retail__customer_keys') }}
),

asked as (
    select distinct
        basket_id,
        customer_id
    from requests
),

basket_lines as (
    select
        lines.basket_id,
        lines.customer_id,
        {{ joined("lines.source_file || ':' || lines.source_line", 'lines.source_file, lines.source_line') }} as basket_rows
    from {{ ref('stg_retail__baskets') }} as lines
    inner join asked on lines.basket_id = asked.basket_id and lines.customer_id = asked.customer_id
    group by lines.basket_id, lines.customer_id
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
        {{ minutes_between('requests.opened_at', 'requests.first_response_at') }} / 60 as hours_to_first_response,
        requests.source_file,
        requests.source_line,
        basket_lines.basket_rows
    from requests
    left join customer_keys on requests.customer_id = customer_keys.customer_id
    left join basket_lines
        on requests.basket_id = basket_lines.basket_id and requests.customer_id = basket_lines.customer_id
    -- Every customer has a key but those who were forgotten and have landed again.
    where requests.customer_id is null or customer_keys.customer_key is not null
)

select * from final
