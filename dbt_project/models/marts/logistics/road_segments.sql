with final as (
    select
        from_node,
        to_node,
        km,
        minutes
    from {{ ref('stg_logistics__road_segments') }}
)

select * from final
