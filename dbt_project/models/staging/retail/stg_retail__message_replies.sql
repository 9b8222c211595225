-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
{{ config(schema='personal') }}

with source as (
    select * from {{ raw('retail', 'message_replies') }}
),

final as (
    select
        cast(message_id as varchar) as message_id,
        cast(kind as varchar) as kind,
        cast(customer_id as varchar) as customer_id,
        cast(replied_at as timestamp with time zone) as replied_at,
        source_file,
        source_line
    from source
)

select * from final
