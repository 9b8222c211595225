{%- set columns = {
    'site_id': 'varchar', 'product_id': 'varchar', 'as_of': 'date', 'ds': 'date', 'mean': 'double',
    'engine_mean': 'double', 'seasonal_naive': 'double', 'override': 'double'
} -%}

with forecasts as (
    select * from {{ written('decisions', 'demand_forecast', 'forecasts/retail/as_of=*/forecast.parquet', columns) }} as f
),

demand as (
    select * from {{ ref('demand') }}
),

credits as (
    select * from {{ ref('override_credit') }}
),

-- Out of stock, what was sold is not what was wanted: such periods judge nobody.
judged as (
    select
        forecasts.as_of,
        forecasts.override is not null as overridden,
        demand.quantity,
        forecasts.mean,
        forecasts.engine_mean,
        forecasts.seasonal_naive,
        forecasts.override
    from forecasts
    inner join demand
        on
            forecasts.site_id = demand.site_id
            and forecasts.product_id = demand.product_id
            and forecasts.ds = demand.period_start
    where demand.in_stock
),

errors as (
    select
        as_of,
        overridden,
        count(*) as forecasts,
        sum(quantity) as demand,
        sum(abs(quantity - seasonal_naive)) / nullif(sum(quantity), 0) as naive_wape,
        sum(abs(quantity - engine_mean)) / nullif(sum(quantity), 0) as engine_wape,
        sum(abs(quantity - mean)) / nullif(sum(quantity), 0) as used_wape
    from judged
    group by as_of, overridden
),

money as (
    select
        as_of,
        true as overridden,
        sum(settled) as settled,
        sum(credit) as credit
    from credits
    group by as_of
),

final as (
    select
        errors.as_of,
        errors.overridden,
        errors.forecasts,
        errors.demand,
        errors.naive_wape,
        errors.engine_wape,
        case when errors.overridden then errors.used_wape end as planner_wape,
        errors.naive_wape - errors.engine_wape as engine_value_added,
        case when errors.overridden then errors.engine_wape - errors.used_wape end as planner_value_added,
        money.settled,
        money.credit
    from errors
    left join money on errors.as_of = money.as_of and errors.overridden = money.overridden
)

select * from final
