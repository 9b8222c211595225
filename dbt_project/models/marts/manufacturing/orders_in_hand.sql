with orders as (
    select * from {{ ref('stg_manufacturing__customer_orders') }}
),

final as (
    select
        product_id,
        {{ monday_of('due_on') }} as due_week,
        count(*) as orders,
        sum(quantity) as quantity,
        min(ordered_on) as first_ordered_on,
        sum(coalesce(late_cost_per_day, 0)) as late_cost_per_day
    from orders
    group by product_id, {{ monday_of('due_on') }}
)

select * from final
