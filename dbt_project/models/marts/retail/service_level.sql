with demand as (
    select * from {{ ref('demand') }}
),

final as (
    select
        site_id,
        product_id,
        {{ monday_of('period_start') }} as week_start,
        sum(quantity) as units_sold,
        count(*) as periods,
        sum(case when in_stock then 1 else 0 end) as periods_in_stock,
        avg(case when in_stock then 1.0 else 0.0 end) as in_stock_share
    from demand
    where landed
    group by site_id, product_id, {{ monday_of('period_start') }}
)

select * from final
