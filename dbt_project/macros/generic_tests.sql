{#- No two rows share the values of these columns. -#}
{% test unique_combination(model, columns) %}
select {{ columns | join(', ') }}
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{#- Values lie between two numbers, where they are given. -#}
{% test accepted_range(model, column_name, low=none, high=none) %}
select {{ column_name }}
from {{ model }}
where {{ column_name }} is not null
    and (
        false
        {%- if low is not none %} or {{ column_name }} < {{ low }}{% endif %}
        {%- if high is not none %} or {{ column_name }} > {{ high }}{% endif %}
    )
{% endtest %}

{#- Two models hold the same sum: nothing was lost or doubled on the way. -#}
{% test same_total(model, column_name, other, other_column) %}
with here as (
    select coalesce(sum({{ column_name }}), 0) as total from {{ model }}
),

there as (
    select coalesce(sum({{ other_column }}), 0) as total from {{ other }}
)

select here.total as here_total, there.total as there_total
from here
cross join there
where abs(here.total - there.total) > 1e-6 * (1 + abs(there.total))
{% endtest %}
