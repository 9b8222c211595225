with final as (
    select
        customer_key,
        basket_id,
        product_id,
        family,
        site_id,
        bought_on,
        bought_hour,
        quantity,
        amount,
        discount,
        margin
    from {{ ref('int_retail__purchases') }}
)

select * from final
