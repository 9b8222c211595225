-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('retail', 'forecast_overrides') }}
),

final as (
    select
        cast(site_id as varchar) as site_id,
        cast(product_id as varchar) as product_id,
        cast(period_start as date) as period_start,
        cast(made_on as date) as made_on,
        cast(quantity as double) as quantity,
        cast(planner as varchar) as planner,
        cast(reason as varchar) as reason,
        source_file,
        source_line
    from source
)

select * from final
