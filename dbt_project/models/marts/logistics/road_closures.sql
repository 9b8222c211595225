with final as (
    select
        from_node,
        to_node,
        closed_from,
        closed_until,
        factor,
        known_at
    from {{ ref('stg_logistics__road_closures') }}
)

select * from final
