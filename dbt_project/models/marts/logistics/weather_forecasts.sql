with final as (
    select
        region,
        valid_at,
        issued_at,
        temperature,
        wind,
        rain,
        visibility
    from {{ ref('stg_logistics__weather_forecasts') }}
)

select * from final
