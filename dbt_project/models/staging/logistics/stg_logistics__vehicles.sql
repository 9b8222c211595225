-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('logistics', 'vehicles') }}
),

final as (
    select
        cast(vehicle_id as varchar) as vehicle_id,
        cast(depot_id as varchar) as depot_id,
        cast(capacity as double) as capacity,
        cast(fixed_cost as double) as fixed_cost,
        cast(cost_per_km as double) as cost_per_km,
        cast(cost_per_hour as double) as cost_per_hour,
        cast(shift_start as varchar) as shift_start,
        cast(shift_end as varchar) as shift_end,
        cast(max_km as double) as max_km,
        source_file,
        source_line
    from source
)

select * from final
