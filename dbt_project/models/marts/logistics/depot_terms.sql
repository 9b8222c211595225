with final as (
    select
        site_id,
        capacity,
        coalesce(handling_cost, 0) as handling_cost,
        overflow_cost,
        stock
    from {{ ref('stg_logistics__depot_terms') }}
)

select * from final
