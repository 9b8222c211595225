{%- set dimensions = ['machine_id', 'line', 'product_id', 'shift'] -%}

with production as (
    select * from {{ ref('production_day') }}
),

totals as (
    {% for dimension in dimensions %}
        select
            '{{ dimension }}' as dimension,
            {{ dimension }} as member,
            {{ monday_of('produced_on') }} as week_start,
            sum(good_quantity) as good_quantity,
            sum(scrap_quantity) as scrap_quantity,
            sum(case when is_output then good_quantity else 0 end) as output_quantity,
            -- What has no meter or no routing is left out of the ratio on both sides: it would count as free, or as slow.
            sum(case when is_output and energy_kwh is not null then good_quantity else 0 end) as metered_quantity,
            sum(case when standard_minutes is not null then run_minutes else 0 end) as timed_minutes,
            sum(run_minutes) as run_minutes,
            sum(setup_minutes) as setup_minutes,
            sum(setups) as setups,
            sum(down_minutes) as down_minutes,
            sum(energy_kwh) as energy_kwh,
            sum(standard_minutes) as standard_minutes
        from production
        where {{ dimension }} is not null
        group by {{ dimension }}, {{ monday_of('produced_on') }}
        {% if not loop.last %}union all{% endif %}
    {% endfor %}
),

rates as (
    select
        *,
        case
            when run_minutes + setup_minutes + down_minutes > 0
                then run_minutes / (run_minutes + setup_minutes + down_minutes)
        end as availability,
        case when timed_minutes > 0 then least(standard_minutes / timed_minutes, 1) end as performance,
        case
            when good_quantity + scrap_quantity > 0 then good_quantity / (good_quantity + scrap_quantity)
        end as quality
    from totals
),

final as (
    select
        dimension,
        member,
        week_start,
        good_quantity,
        scrap_quantity,
        output_quantity,
        run_minutes,
        setup_minutes,
        setups,
        down_minutes,
        energy_kwh,
        availability,
        performance,
        quality,
        availability * performance * quality as oee,
        1 - quality as scrap_share,
        case when metered_quantity > 0 then energy_kwh / metered_quantity end as energy_per_good_unit,
        case when run_minutes > 0 then good_quantity / (run_minutes / 60) end as good_units_per_hour
    from rates
)

select * from final
