-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('common', 'events') }}
),

final as (
    select
        cast(event_on as date) as event_on,
        cast(name as varchar) as name,
        cast(region as varchar) as region,
        source_file,
        source_line
    from source
)

select * from final
