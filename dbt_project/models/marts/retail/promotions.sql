with offers as (
    -- An offer that only some customers can use changes nobody else's price.
    select * from {{ ref('stg_retail__offers') }}
    where not coalesce(targeted, false)
),

products as (
    select * from {{ ref('stg_common__products') }}
),

-- An offer for a product names it; an offer for a family means each of its products.
of_product as (
    select
        offer_id,
        product_id,
        starts_on,
        ends_on,
        discount
    from offers
    where product_id is not null
),

of_family as (
    select
        offers.offer_id,
        products.product_id,
        offers.starts_on,
        offers.ends_on,
        offers.discount
    from offers
    inner join products on offers.family = products.family
    where offers.product_id is null
),

final as (
    select * from of_product
    union all
    select * from of_family
)

select * from final
