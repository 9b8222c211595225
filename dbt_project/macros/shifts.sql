{#- The hour at which the shift of an hour of the day begins. -#}
{%- macro shift_hour(hour) -%}
    {%- set starts = var('shift_hours') -%}
    case
        {%- for start in starts | reverse %} when {{ hour }} >= {{ start }} then {{ start }}{% endfor %} else {{ starts[-1] }}
    end
{%- endmacro -%}

{#- Hours of the shift that begins at an hour. -#}
{%- macro shift_length(start_hour) -%}
    {%- set starts = var('shift_hours') -%}
    case {{ start_hour }}
        {%- for start in starts %} when {{ start }} then {{ (starts[0] + 24 if loop.last else starts[loop.index]) - start }}{% endfor %}
    end
{%- endmacro -%}

{#- Whether an hour of the day comes before its first shift: the last one of the day before still works then. -#}
{%- macro before_first_shift(hour) -%}
    {{ hour }} < {{ var('shift_hours')[0] }}
{%- endmacro -%}
