-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'component_costs') }}
),

final as (
    select
        cast(component as varchar) as component,
        cast(planned_cost as double) as planned_cost,
        cast(failure_cost as double) as failure_cost,
        cast(planned_minutes as double) as planned_minutes,
        cast(failure_minutes as double) as failure_minutes,
        source_file,
        source_line
    from source
)

select * from final
