-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'customer_orders') }}
),

final as (
    select
        cast(order_id as varchar) as order_id,
        cast(product_id as varchar) as product_id,
        cast(quantity as double) as quantity,
        cast(ordered_on as date) as ordered_on,
        cast(due_on as date) as due_on,
        cast(late_cost_per_day as double) as late_cost_per_day,
        cast(delivered_quantity as double) as delivered_quantity,
        cast(delivered_on as date) as delivered_on,
        source_file,
        source_line
    from source
)

select * from final
