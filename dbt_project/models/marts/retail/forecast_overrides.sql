with final as (
    select
        site_id,
        product_id,
        period_start,
        made_on,
        quantity,
        planner,
        reason
    from {{ ref('stg_retail__forecast_overrides') }}
)

select * from final
