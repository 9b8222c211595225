{#- Readings of longer periods from those of hours. The standard deviation is pooled from that within and between the hours
    (Chan, Golub and LeVeque 1983); `mean` is the mean of the whole period. -#}
{%- macro pooled_readings() -%}
        sum(readings) as readings,
        any_value(mean) as value,
        min(lowest) as lowest,
        max(highest) as highest,
        case
            when sum(readings) > 1
                then sqrt(
                    sum((readings - 1) * coalesce(spread * spread, 0) + readings * (value - mean) * (value - mean))
                    / (sum(readings) - 1)
                )
        end as spread,
        {{ value_at_last('last_value', 'last_at') }} as last_value,
        max(last_at) as last_at,
        sum(readings) >= {{ var('stuck_readings', 10) }} and min(lowest) = max(highest) as is_stuck
{%- endmacro -%}

{#- Mean of all readings of a period, beside each of its hours. -#}
{%- macro mean_of_period(by) -%}
    sum(value * readings) over (partition by {{ by }}) / sum(readings) over (partition by {{ by }})
{%- endmacro -%}
