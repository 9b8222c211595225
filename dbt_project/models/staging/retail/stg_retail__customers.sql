-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
{{ config(schema='personal') }}

with source as (
    select * from {{ raw('retail', 'customers') }}
),

final as (
    select
        cast(customer_id as varchar) as customer_id,
        cast(joined_on as date) as joined_on,
        cast(marketing_consent as boolean) as marketing_consent,
        cast(email as varchar) as email,
        source_file,
        source_line
    from source
)

select * from final
