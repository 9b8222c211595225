-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'road_nodes') }}
),

final as (
    select
        cast(node_id as varchar) as node_id,
        cast(latitude as double) as latitude,
        cast(longitude as double) as longitude,
        source_file,
        source_line
    from source
)

select * from final
