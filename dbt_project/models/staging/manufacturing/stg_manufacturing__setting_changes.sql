-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'setting_changes') }}
),

final as (
    select
        cast(machine_id as varchar) as machine_id,
        cast(setting as varchar) as setting,
        cast(changed_at as timestamp with time zone) as changed_at,
        cast(value as double) as value,
        cast(decision_id as varchar) as decision_id,
        source_file,
        source_line
    from source
)

select * from final
