with final as (
    select
        component,
        planned_cost,
        failure_cost,
        planned_minutes,
        failure_minutes,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__component_costs') }}
)

select * from final
