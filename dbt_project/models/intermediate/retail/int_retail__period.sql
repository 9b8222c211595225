with sales as (
    select sold_on from {{ ref('stg_retail__sales') }}
),

shape as (
    select
        count(distinct sold_on) as dates,
        count(distinct {{ weekday('sold_on') }}) as weekdays,
        min(sold_on) as first_period,
        max(sold_on) as last_period
    from sales
),

final as (
    select
        {% if var('period') in ('day', 'week') %}
            '{{ var('period') }}' as period,
            {{ 7 if var('period') == 'week' else 1 }} as days,
        {% else %}
            case when dates >= 2 and weekdays = 1 then 'week' else 'day' end as period,
            case when dates >= 2 and weekdays = 1 then 7 else 1 end as days,
        {% endif %}
        first_period,
        last_period
    from shape
)

select * from final
