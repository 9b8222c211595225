with final as (
    select
        counted_on,
        product_id,
        on_hand,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__plant_stock') }}
)

select * from final
