with lines as (
    select * from {{ ref('stg_retail__baskets') }}
),

customer_keys as (
    select * from {{ ref('int_retail__customer_keys') }}
),

products as (
    select * from {{ ref('stg_common__products') }}
),

final as (
    select
        customer_keys.customer_key,
        lines.basket_id,
        lines.product_id,
        products.family,
        lines.site_id,
        {{ day_of('lines.bought_at') }} as bought_on,
        {{ hour_of('lines.bought_at') }} as bought_hour,
        lines.quantity,
        lines.amount,
        coalesce(lines.discount, 0) as discount,
        lines.amount - lines.quantity * products.unit_cost as margin
    from lines
    inner join customer_keys on lines.customer_id = customer_keys.customer_id
    left join products on lines.product_id = products.product_id
)

select * from final
