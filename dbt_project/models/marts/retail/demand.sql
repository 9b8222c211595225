with series as (
    select * from {{ ref('int_retail__series') }}
),

period as (
    select * from {{ ref('int_retail__period') }}
),

sales as (
    select * from {{ ref('stg_retail__sales') }}
),

availability as (
    select * from {{ ref('stg_retail__availability') }}
),

products as (
    select * from {{ ref('stg_common__products') }}
),

calendar as (
    select cast({{ date_series('first_period', 'last_period', 'days') }} as date) as period_start
    from period
    where first_period is not null
),

grid as (
    select
        series.site_id,
        series.product_id,
        calendar.period_start
    from series
    inner join calendar on series.first_period <= calendar.period_start
),

final as (
    select
        grid.site_id,
        grid.product_id,
        products.family,
        grid.period_start,
        coalesce(sales.quantity, 0) as quantity,
        coalesce(availability.in_stock, true) as in_stock,
        sales.price,
        sales.promotion
    from grid
    left join sales
        on
            grid.site_id = sales.site_id
            and grid.product_id = sales.product_id
            and grid.period_start = sales.sold_on
    left join availability
        on
            grid.site_id = availability.site_id
            and grid.product_id = availability.product_id
            and grid.period_start = availability.sold_on
    left join products on grid.product_id = products.product_id
)

select * from final
