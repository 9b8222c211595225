with sales as (
    select * from {{ ref('stg_retail__sales') }}
),

availability as (
    select * from {{ ref('stg_retail__availability') }}
),

-- A product that was never on the shelf of a site yet has no demand to speak of: the series begins when it first was.
seen as (
    select
        sales.site_id,
        sales.product_id,
        sales.sold_on
    from sales
    left join availability
        on
            sales.site_id = availability.site_id
            and sales.product_id = availability.product_id
            and sales.sold_on = availability.sold_on
    where sales.quantity > 0 or coalesce(availability.in_stock, true)
    union all
    select
        site_id,
        product_id,
        sold_on
    from availability
    where in_stock
),

final as (
    select
        site_id,
        product_id,
        min(sold_on) as first_period
    from seen
    group by site_id, product_id
)

select * from final
