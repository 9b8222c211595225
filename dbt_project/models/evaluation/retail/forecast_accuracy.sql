{%- set quantiles = ['0.05', '0.1', '0.25', '0.5', '0.75', '0.9', '0.95'] -%}
{%- set columns = {'site_id': 'varchar', 'product_id': 'varchar', 'as_of': 'date', 'ds': 'date', 'mean': 'double'} -%}
{%- for q in quantiles %}{% do columns.update({'"q' ~ q ~ '"': 'double'}) %}{% endfor -%}

with forecasts as (
    select * from {{ written('decisions', 'demand_forecast', 'forecasts/retail/as_of=*/forecast.parquet', columns) }} as f
),

demand as (
    select * from {{ ref('demand') }}
),

period as (
    select * from {{ ref('int_retail__period') }}
),

-- Out of stock, what was sold is not what was wanted: such periods judge no forecast.
judged as (
    select
        forecasts.as_of,
        cast({{ days_between('forecasts.as_of', 'forecasts.ds') }} / period.days as integer) as step,
        demand.quantity,
        forecasts.mean,
        {% for q in quantiles -%}
        forecasts."q{{ q }}"{{ "," if not loop.last }}
        {% endfor %}
    from forecasts
    inner join demand
        on
            forecasts.site_id = demand.site_id
            and forecasts.product_id = demand.product_id
            and forecasts.ds = demand.period_start
    cross join period
    where demand.in_stock
),

final as (
    select
        as_of,
        step,
        count(*) as series,
        sum(quantity) as demand,
        sum(mean) as forecast,
        sum(abs(quantity - "q0.5")) as absolute_error,
        case when sum(quantity) > 0 then sum(abs(quantity - "q0.5")) / sum(quantity) end as wape,
        case when sum(quantity) > 0 then sum(mean - quantity) / sum(quantity) end as bias,
        2 * (
            {% for q in quantiles -%}
            sum(greatest({{ q }} * (quantity - "q{{ q }}"), ({{ q }} - 1) * (quantity - "q{{ q }}"))){{ " +" if not loop.last }}
            {% endfor -%}
        ) / ({{ quantiles | length }} * nullif(sum(quantity), 0)) as weighted_quantile_loss,
        avg(case when quantity between "q0.1" and "q0.9" then 1.0 else 0.0 end) as coverage_80,
        avg(case when quantity between "q0.05" and "q0.95" then 1.0 else 0.0 end) as coverage_90
    from judged
    group by as_of, step
)

select * from final
