-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'road_segments') }}
),

final as (
    select
        cast(from_node as varchar) as from_node,
        cast(to_node as varchar) as to_node,
        cast(km as double) as km,
        cast(minutes as double) as minutes,
        source_file,
        source_line
    from source
)

select * from final
