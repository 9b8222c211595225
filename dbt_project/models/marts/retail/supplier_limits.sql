with final as (
    select
        supplier_id,
        arrives_on,
        max_quantity,
        max_spend
    from {{ ref('stg_retail__supplier_limits') }}
)

select * from final
