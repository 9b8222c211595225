with final as (
    select
        valid_at,
        price_per_kwh,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__energy_prices') }}
)

select * from final
