with final as (
    select
        product_id,
        name,
        family,
        unit_cost,
        unit_price,
        holding_cost,
        weight_kg
    from {{ ref('stg_common__products') }}
)

select * from final
