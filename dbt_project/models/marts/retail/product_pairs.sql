with purchases as (
    select distinct
        basket_id,
        product_id
    from {{ ref('int_retail__purchases') }}
),

-- A basket without a second product says nothing about what sells together, yet it counts in the shares.
totals as (
    select count(distinct basket_id) as baskets from purchases
),

products as (
    select
        product_id,
        count(*) as baskets
    from purchases
    group by product_id
),

pairs as (
    select
        one.product_id,
        other.product_id as with_product_id,
        count(*) as baskets_both
    from purchases as one
    inner join purchases as other on one.basket_id = other.basket_id and one.product_id <> other.product_id
    group by one.product_id, other.product_id
    having count(*) >= 5
),

measured as (
    select
        pairs.product_id,
        pairs.with_product_id,
        pairs.baskets_both,
        one.baskets as baskets_product,
        other.baskets as baskets_with,
        pairs.baskets_both * 1.0 / totals.baskets as support,
        pairs.baskets_both * 1.0 / one.baskets as confidence,
        pairs.baskets_both * 1.0 * totals.baskets / (one.baskets * 1.0 * other.baskets) as lift
    from pairs
    inner join products as one on pairs.product_id = one.product_id
    inner join products as other on pairs.with_product_id = other.product_id
    cross join totals
),

-- Variance of the logarithm of lift: 1/both - 1/one - 1/other + 1/all, by the delta method on multinomial counts.
errors as (
    select
        measured.*,
        sqrt(greatest(
            1.0 / measured.baskets_both - 1.0 / measured.baskets_product - 1.0 / measured.baskets_with + 1.0 / totals.baskets,
            0.0
        )) as log_error
    from measured
    cross join totals
),

final as (
    select
        product_id,
        with_product_id,
        baskets_both,
        baskets_product,
        baskets_with,
        support,
        confidence,
        lift,
        lift * exp(-1.96 * log_error) as lift_low,
        lift * exp(1.96 * log_error) as lift_high
    from errors
)

select * from final
