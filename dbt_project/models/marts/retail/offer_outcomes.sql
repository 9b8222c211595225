with responses as (
    select * from {{ ref('stg_retail__offer_responses') }}
),

customer_keys as (
    select * from {{ ref('int_retail__customer_keys') }}
),

offers as (
    select * from {{ ref('stg_retail__offers') }}
),

final as (
    select
        customer_keys.customer_key,
        responses.offer_id,
        offers.product_id,
        offers.family,
        offers.discount,
        offers.cost_per_use,
        offers.ends_on,
        responses.sent_on,
        responses.redeemed,
        coalesce(responses.held_out, false) as held_out,
        responses.profit
    from responses
    inner join customer_keys on responses.customer_id = customer_keys.customer_id
    left join offers on responses.offer_id = offers.offer_id
)

select * from final
