-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'road_closures') }}
),

final as (
    select
        cast(from_node as varchar) as from_node,
        cast(to_node as varchar) as to_node,
        cast(closed_from as timestamp with time zone) as closed_from,
        cast(closed_until as timestamp with time zone) as closed_until,
        cast(factor as double) as factor,
        cast(known_at as timestamp with time zone) as known_at,
        source_file,
        source_line
    from source
)

select * from final
