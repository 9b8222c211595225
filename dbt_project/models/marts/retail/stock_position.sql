with final as (
    select
        counted_on,
        site_id,
        product_id,
        on_hand,
        source_file,
        source_line
    from {{ ref('stg_retail__stock') }}
)

select * from final
