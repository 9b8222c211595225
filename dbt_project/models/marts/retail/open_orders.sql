with final as (
    select
        site_id,
        product_id,
        arrives_on,
        quantity,
        ordered_on,
        source_file,
        source_line
    from {{ ref('stg_retail__open_orders') }}
)

select * from final
