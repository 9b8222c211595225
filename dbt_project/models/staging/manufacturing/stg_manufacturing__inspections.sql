-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('manufacturing', 'inspections') }}
),

final as (
    select
        cast(unit_id as varchar) as unit_id,
        cast(inspected_at as timestamp with time zone) as inspected_at,
        cast(machine_id as varchar) as machine_id,
        cast(product_id as varchar) as product_id,
        cast(defect as varchar) as defect,
        source_file,
        source_line
    from source
)

select * from final
