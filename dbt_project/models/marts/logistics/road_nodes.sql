with final as (
    select
        node_id,
        latitude,
        longitude
    from {{ ref('stg_logistics__road_nodes') }}
)

select * from final
