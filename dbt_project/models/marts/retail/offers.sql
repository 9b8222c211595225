with final as (
    select
        offer_id,
        product_id,
        family,
        discount,
        cost_per_use,
        starts_on,
        ends_on,
        budget,
        coalesce(targeted, false) as targeted
    from {{ ref('stg_retail__offers') }}
)

select * from final
