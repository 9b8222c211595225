with purchases as (
    select * from {{ ref('int_retail__purchases') }}
),

customers as (
    select * from {{ ref('stg_retail__customers') }}
),

customer_keys as (
    select * from {{ ref('int_retail__customer_keys') }}
),

offer_outcomes as (
    select * from {{ ref('offer_outcomes') }}
),

latest as (
    select max(bought_on) as last_day from purchases
),

baskets as (
    select
        customer_key,
        basket_id,
        min(site_id) as site_id,
        min(bought_on) as bought_on,
        min(bought_hour) as bought_hour,
        count(distinct product_id) as products,
        sum(quantity) as units,
        sum(amount) as amount,
        sum(discount) as discount
    from purchases
    group by customer_key, basket_id
),

totals as (
    select
        baskets.customer_key,
        max(baskets.bought_on) as last_bought_on,
        count(*) as frequency,
        sum(baskets.amount) as monetary,
        sum(case when baskets.bought_on > {{ add_days('latest.last_day', -91) }} then baskets.amount else 0 end) as spend_91_days,
        avg(baskets.amount) as basket_amount,
        avg(baskets.units) as basket_units,
        avg(baskets.products) as basket_products,
        sum(baskets.discount) / nullif(sum(baskets.amount) + sum(baskets.discount), 0) as price_sensitivity
    from baskets
    cross join latest
    group by baskets.customer_key
),

promotion as (
    select
        customer_key,
        avg(case when discount > 0 then 1.0 else 0.0 end) as promotion_share,
        sum(margin) as margin
    from purchases
    group by customer_key
),

families as (
    select
        customer_key,
        family,
        sum(amount) as amount,
        row_number() over (partition by customer_key order by sum(amount) desc, family asc) as place
    from purchases
    where family is not null
    group by customer_key, family
),

favourites as (
    select
        customer_key,
        max(case when place = 1 then family end) as favourite_family,
        max(case when place = 2 then family end) as second_family,
        max(case when place = 1 then amount end) / nullif(sum(amount), 0) as favourite_share
    from families
    group by customer_key
),

stores as (
    select
        customer_key,
        site_id,
        row_number() over (partition by customer_key order by count(*) desc, site_id asc) as place
    from baskets
    group by customer_key, site_id
),

hours as (
    select
        customer_key,
        case when bought_hour < 12 then 'morning' when bought_hour < 17 then 'afternoon' else 'evening' end as part_of_day,
        row_number() over (
            partition by customer_key
            order by
                count(*) desc,
                case when bought_hour < 12 then 1 when bought_hour < 17 then 2 else 3 end asc
        ) as place
    from baskets
    group by
        customer_key,
        case when bought_hour < 12 then 'morning' when bought_hour < 17 then 'afternoon' else 'evening' end,
        case when bought_hour < 12 then 1 when bought_hour < 17 then 2 else 3 end
),

responses as (
    select
        customer_key,
        count(*) as offers_received,
        sum(case when redeemed then 1 else 0 end) as offers_redeemed
    from offer_outcomes
    where not held_out
    group by customer_key
),

final as (
    select
        customer_keys.customer_key,
        coalesce(customers.marketing_consent, false) as marketing_consent,
        coalesce(customers.email like '%_@_%', false) as reachable,
        totals.last_bought_on,
        {{ days_between('totals.last_bought_on', 'latest.last_day') }} + 1 as recency_days,
        coalesce(totals.frequency, 0) as frequency,
        coalesce(totals.monetary, 0) as monetary,
        coalesce(totals.spend_91_days, 0) as spend_91_days,
        promotion.margin,
        favourites.favourite_family,
        favourites.second_family,
        favourites.favourite_share,
        stores.site_id as main_site,
        hours.part_of_day as usual_time,
        totals.price_sensitivity,
        promotion.promotion_share,
        totals.basket_amount,
        totals.basket_products,
        case
            when totals.frequency is null then 'none yet'
            when totals.basket_units < 2.5 then 'a thing or two'
            when totals.basket_units < 8 then 'top-up'
            else 'stock-up'
        end as basket_type,
        coalesce(responses.offers_received, 0) as offers_received,
        coalesce(responses.offers_redeemed, 0) as offers_redeemed
    from customer_keys
    cross join latest
    left join customers on customer_keys.customer_id = customers.customer_id
    left join totals on customer_keys.customer_key = totals.customer_key
    left join promotion on customer_keys.customer_key = promotion.customer_key
    left join favourites on customer_keys.customer_key = favourites.customer_key
    left join stores on customer_keys.customer_key = stores.customer_key and stores.place = 1
    left join hours on customer_keys.customer_key = hours.customer_key and hours.place = 1
    left join responses on customer_keys.customer_key = responses.customer_key
)

select * from final
