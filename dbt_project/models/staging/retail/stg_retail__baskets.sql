-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
{{ config(schema='personal') }}

with source as (
    select * from {{ raw('retail', 'baskets') }}
),

final as (
    select
        cast(basket_id as varchar) as basket_id,
        cast(product_id as varchar) as product_id,
        cast(customer_id as varchar) as customer_id,
        cast(site_id as varchar) as site_id,
        cast(bought_at as timestamp with time zone) as bought_at,
        cast(quantity as double) as quantity,
        cast(amount as double) as amount,
        cast(discount as double) as discount,
        source_file,
        source_line
    from source
)

select * from final
