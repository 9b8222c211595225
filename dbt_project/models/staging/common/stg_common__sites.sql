-- Generated from npq_assets/contracts by python -m npq_assets.warehouse.sources; do not edit.
with source as (
    select * from {{ raw('common', 'sites') }}
),

final as (
    select
        cast(site_id as varchar) as site_id,
        cast(kind as varchar) as kind,
        cast(name as varchar) as name,
        cast(latitude as double) as latitude,
        cast(longitude as double) as longitude,
        cast(region as varchar) as region,
        source_file,
        source_line
    from source
)

select * from final
