-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'component_replacements') }}
),

final as (
    select
        cast(replaced_at as timestamp with time zone) as replaced_at,
        cast(machine_id as varchar) as machine_id,
        cast(component as varchar) as component,
        cast(cause as varchar) as cause,
        source_file,
        source_line
    from source
)

select * from final
