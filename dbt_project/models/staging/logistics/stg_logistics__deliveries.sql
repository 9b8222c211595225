-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
{{ config(schema='personal') }}

with source as (
    select * from {{ raw('logistics', 'deliveries') }}
),

final as (
    select
        cast(delivery_id as varchar) as delivery_id,
        cast(depot_id as varchar) as depot_id,
        cast(latitude as double) as latitude,
        cast(longitude as double) as longitude,
        cast(node_id as varchar) as node_id,
        cast(quantity as double) as quantity,
        cast(ready_at as timestamp with time zone) as ready_at,
        cast(due_at as timestamp with time zone) as due_at,
        cast(service_minutes as double) as service_minutes,
        cast(late_cost_per_minute as double) as late_cost_per_minute,
        cast(drop_cost as double) as drop_cost,
        cast(customer_id as varchar) as customer_id,
        cast(site_id as varchar) as site_id,
        cast(ordered_at as timestamp with time zone) as ordered_at,
        cast(rebook_cost as double) as rebook_cost,
        source_file,
        source_line
    from source
)

select * from final
