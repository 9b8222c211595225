with final as (
    select
        from_id,
        to_id,
        km,
        minutes
    from {{ ref('stg_logistics__travel_times') }}
)

select * from final
