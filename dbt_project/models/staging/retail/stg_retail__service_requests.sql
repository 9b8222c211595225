-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
{{ config(schema='personal') }}

with source as (
    select * from {{ raw('retail', 'service_requests') }}
),

final as (
    select
        cast(request_id as varchar) as request_id,
        cast(customer_id as varchar) as customer_id,
        cast(opened_at as timestamp with time zone) as opened_at,
        cast(topic as varchar) as topic,
        cast(delivery_id as varchar) as delivery_id,
        cast(basket_id as varchar) as basket_id,
        cast(closed_at as timestamp with time zone) as closed_at,
        cast(product_id as varchar) as product_id,
        cast(first_response_at as timestamp with time zone) as first_response_at,
        source_file,
        source_line
    from source
)

select * from final
