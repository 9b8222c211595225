with orders as (
    select * from {{ ref('stg_manufacturing__customer_orders') }}
),

final as (
    select
        order_id,
        product_id,
        quantity,
        ordered_on,
        due_on,
        late_cost_per_day,
        coalesce(delivered_quantity, case when delivered_on is not null then quantity else 0 end) as delivered_quantity,
        delivered_on,
        case
            when delivered_on is not null
                then greatest({{ days_between('due_on', 'delivered_on') }}, 0)
        end as late_days,
        source_file,
        source_line
    from orders
)

select * from final
