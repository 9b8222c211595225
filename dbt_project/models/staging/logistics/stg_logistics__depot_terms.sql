-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'depot_terms') }}
),

final as (
    select
        cast(site_id as varchar) as site_id,
        cast(capacity as double) as capacity,
        cast(handling_cost as double) as handling_cost,
        cast(overflow_cost as double) as overflow_cost,
        cast(stock as double) as stock,
        source_file,
        source_line
    from source
)

select * from final
