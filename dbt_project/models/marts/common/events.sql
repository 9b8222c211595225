with final as (
    select
        event_on,
        name,
        region
    from {{ ref('stg_common__events') }}
)

select * from final
