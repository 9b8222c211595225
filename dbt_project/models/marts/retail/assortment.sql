with demand as (
    select * from {{ ref('demand') }}
),

products as (
    select * from {{ ref('stg_common__products') }}
),

latest as (
    select max(period_start) as last_period from demand
),

totals as (
    select
        demand.product_id,
        sum(demand.quantity) as units,
        sum(demand.quantity * coalesce(demand.price, products.unit_price, products.unit_cost, 1)) as revenue,
        avg(demand.quantity) as mean_quantity,
        stddev_pop(demand.quantity) as sd_quantity
    from demand
    cross join latest
    left join products on demand.product_id = products.product_id
    where demand.in_stock and demand.period_start > {{ add_days('latest.last_period', -364) }}
    group by demand.product_id
),

ranked as (
    select
        product_id,
        units,
        revenue,
        case when mean_quantity > 0 then sd_quantity / mean_quantity end as variation,
        sum(revenue) over (order by revenue desc, product_id asc) - revenue as revenue_before,
        sum(revenue) over () as revenue_total
    from totals
),

final as (
    select
        product_id,
        units,
        revenue,
        variation,
        case
            when revenue_total <= 0 or revenue_before >= 0.95 * revenue_total then 'C'
            when revenue_before >= 0.8 * revenue_total then 'B'
            else 'A'
        end as abc_class,
        case
            when variation is null or variation > 1.0 then 'Z'
            when variation > 0.5 then 'Y'
            else 'X'
        end as xyz_class
    from ranked
)

select * from final
