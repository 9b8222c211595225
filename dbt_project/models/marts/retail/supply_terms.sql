with terms as (
    select * from {{ ref('stg_retail__supply_terms') }}
),

products as (
    select * from {{ ref('stg_common__products') }}
),

final as (
    select
        terms.site_id,
        terms.product_id,
        terms.lead_time_periods,
        terms.holding_cost,
        terms.shortage_cost,
        coalesce(terms.pack_size, 1) as pack_size,
        coalesce(terms.min_order, 0) as min_order,
        terms.supplier_id,
        products.family,
        products.unit_cost
    from terms
    left join products on terms.product_id = products.product_id
)

select * from final
