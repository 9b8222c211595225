with final as (
    select
        product_id,
        component_id,
        quantity,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__bills_of_material') }}
)

select * from final
