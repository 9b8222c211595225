with final as (
    select
        site_id,
        kind,
        name,
        latitude,
        longitude,
        region
    from {{ ref('stg_common__sites') }}
)

select * from final
