with routings as (
    select * from {{ ref('stg_manufacturing__routings') }}
),

final as (
    select
        product_id,
        operation,
        machine_id,
        minutes_per_unit,
        setup_minutes,
        setup_cost,
        setup_family,
        coalesce(family_setup_minutes, 0) as family_setup_minutes,
        coalesce(family_setup_cost, 0) as family_setup_cost,
        coalesce(minimum_lot, 0) as minimum_lot,
        transport_batch,
        operation = max(operation) over (partition by product_id) as is_last,
        source_file,
        source_line
    from routings
)

select * from final
