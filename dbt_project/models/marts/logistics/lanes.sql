with final as (
    select
        from_id,
        to_id,
        cost_per_unit,
        capacity
    from {{ ref('stg_logistics__lanes') }}
)

select * from final
