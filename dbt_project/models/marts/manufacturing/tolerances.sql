with final as (
    select
        feature,
        product_id,
        lower,
        upper,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__tolerances') }}
)

select * from final
