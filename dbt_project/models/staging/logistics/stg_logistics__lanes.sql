-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'lanes') }}
),

final as (
    select
        cast(from_id as varchar) as from_id,
        cast(to_id as varchar) as to_id,
        cast(cost_per_unit as double) as cost_per_unit,
        cast(capacity as double) as capacity,
        source_file,
        source_line
    from source
)

select * from final
