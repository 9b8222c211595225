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

site_periods as (
    select distinct
        site_id,
        sold_on
    from sales
),

site_last as (
    select
        site_id,
        max(sold_on) as last_sold
    from site_periods
    group by site_id
),

-- A site that sells in nearly every period and is silent in the latest ones has not landed them yet: that is no demand of zero.
late as (
    select
        site_last.site_id,
        site_last.last_sold
    from site_last
    cross join period
    inner join site_periods
        on
            site_last.site_id = site_periods.site_id
            and site_periods.sold_on > {{ add_days('site_last.last_sold', -56) }}
    where
        site_last.last_sold < period.last_period
        and {{ days_between('site_last.last_sold', 'period.last_period') }} <= 7 * case when period.days = 7 then 2 else 1 end
    group by site_last.site_id, site_last.last_sold, period.days
    having count(*) * period.days >= 52
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
        coalesce(availability.in_stock, true) and late.site_id is null as in_stock,
        late.site_id is null as landed,
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
    left join late
        on
            grid.site_id = late.site_id
            and grid.period_start > late.last_sold
    left join products on grid.product_id = products.product_id
)

select * from final
