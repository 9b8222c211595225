with final as (
    select
        product_id,
        arrives_on,
        quantity,
        ordered_on,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__component_receipts') }}
)

select * from final
