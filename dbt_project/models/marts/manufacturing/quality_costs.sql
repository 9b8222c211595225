with final as (
    select
        product_id,
        inspection_cost,
        miss_cost,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__quality_costs') }}
)

select * from final
