with final as (
    select
        region,
        valid_at,
        temperature,
        wind,
        rain,
        visibility
    from {{ ref('stg_logistics__weather') }}
)

select * from final
