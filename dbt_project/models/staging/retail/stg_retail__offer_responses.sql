-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
{{ config(schema='personal') }}

with source as (
    select * from {{ raw('retail', 'offer_responses') }}
),

final as (
    select
        cast(customer_id as varchar) as customer_id,
        cast(offer_id as varchar) as offer_id,
        cast(sent_on as date) as sent_on,
        cast(redeemed as boolean) as redeemed,
        cast(held_out as boolean) as held_out,
        cast(profit as double) as profit,
        source_file,
        source_line
    from source
)

select * from final
