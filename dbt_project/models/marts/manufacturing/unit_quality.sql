with measurements as (
    select * from {{ ref('stg_manufacturing__measurements') }}
),

inspections as (
    select * from {{ ref('stg_manufacturing__inspections') }}
),

final as (
    select
        measurements.unit_id,
        measurements.feature,
        measurements.value,
        coalesce(measurements.machine_id, inspections.machine_id) as machine_id,
        coalesce(measurements.product_id, inspections.product_id) as product_id,
        coalesce(measurements.measured_at, inspections.inspected_at) as measured_at,
        inspections.inspected_at,
        inspections.unit_id is not null as is_inspected,
        inspections.defect
    from measurements
    left join inspections on measurements.unit_id = inspections.unit_id
)

select * from final
