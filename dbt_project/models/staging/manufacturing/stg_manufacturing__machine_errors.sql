-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'machine_errors') }}
),

final as (
    select
        cast(occurred_at as timestamp with time zone) as occurred_at,
        cast(machine_id as varchar) as machine_id,
        cast(error_code as varchar) as error_code,
        source_file,
        source_line
    from source
)

select * from final
