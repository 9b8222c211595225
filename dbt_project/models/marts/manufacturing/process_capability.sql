with units as (
    select * from {{ ref('unit_quality') }}
    where measured_at is not null and machine_id is not null
),

tolerances as (
    select * from {{ ref('tolerances') }}
),

tolerated as (
    select
        units.machine_id,
        units.feature,
        units.unit_id,
        units.value,
        units.measured_at,
        -- A tolerance of the product goes before the one for all products.
        case when own.feature is not null then units.product_id else '' end as product_id,
        case when own.feature is not null then own.lower else common.lower end as lower_limit,
        case when own.feature is not null then own.upper else common.upper end as upper_limit,
        {{ monday_of(day_of('units.measured_at')) }} as week_start
    from units
    left join tolerances as own
        on units.feature = own.feature and units.product_id = own.product_id
    left join tolerances as common
        on units.feature = common.feature and coalesce(common.product_id, '') = ''
    where own.feature is not null or common.feature is not null
),

moved as (
    select
        tolerated.*,
        abs(
            value - lag(value) over (
                partition by machine_id, feature, product_id, week_start
                order by measured_at, unit_id
            )
        ) as moving_range
    from tolerated
),

weeks as (
    select
        machine_id,
        feature,
        product_id,
        week_start,
        count(*) as units,
        avg(value) as mean,
        -- d2 of two consecutive values (Montgomery, Introduction to Statistical Quality Control, ch. 6).
        avg(moving_range) / 1.128 as sigma_within,
        stddev_samp(value) as sigma_overall,
        max(lower_limit) as lower_limit,
        max(upper_limit) as upper_limit,
        avg(case when value < lower_limit or value > upper_limit then 1.0 else 0.0 end) as outside_share
    from moved
    group by machine_id, feature, product_id, week_start
),

final as (
    select
        machine_id,
        feature,
        product_id,
        week_start,
        units,
        mean,
        sigma_within,
        sigma_overall,
        lower_limit,
        upper_limit,
        case when sigma_within > 0 then (upper_limit - lower_limit) / (6 * sigma_within) end as cp,
        case
            when sigma_within > 0
                then least(
                    coalesce((upper_limit - mean) / (3 * sigma_within), (mean - lower_limit) / (3 * sigma_within)),
                    coalesce((mean - lower_limit) / (3 * sigma_within), (upper_limit - mean) / (3 * sigma_within))
                )
        end as cpk,
        case
            when sigma_overall > 0
                then least(
                    coalesce((upper_limit - mean) / (3 * sigma_overall), (mean - lower_limit) / (3 * sigma_overall)),
                    coalesce((mean - lower_limit) / (3 * sigma_overall), (upper_limit - mean) / (3 * sigma_overall))
                )
        end as ppk,
        outside_share
    from weeks
)

select * from final
