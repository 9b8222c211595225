-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'travel_times') }}
),

final as (
    select
        cast(from_id as varchar) as from_id,
        cast(to_id as varchar) as to_id,
        cast(km as double) as km,
        cast(minutes as double) as minutes,
        source_file,
        source_line
    from source
)

select * from final
