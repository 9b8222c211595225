with orders as (
    select * from {{ ref('customer_orders') }}
),

final as (
    select
        product_id,
        {{ monday_of('due_on') }} as due_week,
        count(*) as orders,
        sum(quantity) as quantity,
        sum(case when delivered_on <= due_on then 1 else 0 end) as orders_in_time,
        sum(case when delivered_on <= due_on then quantity else 0 end) as quantity_in_time,
        sum(late_days) as late_days,
        max(late_days) as most_late_days,
        sum(case when delivered_on is null then 1 else 0 end) as orders_open
    from orders
    group by product_id, {{ monday_of('due_on') }}
)

select * from final
