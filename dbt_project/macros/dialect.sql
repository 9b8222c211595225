{#- Everything that another SQL engine spells differently. -#}

{%- macro date_series(first, last, days) -%}
    unnest(generate_series(cast({{ first }} as timestamp), cast({{ last }} as timestamp), to_days({{ days }})))
{%- endmacro -%}

{%- macro days_between(first, last) -%}
    date_diff('day', {{ first }}, {{ last }})
{%- endmacro -%}

{%- macro minutes_between(first, last) -%}
    (date_diff('second', {{ first }}, {{ last }}) / 60.0)
{%- endmacro -%}

{%- macro weekday(day) -%}
    isodow({{ day }})
{%- endmacro -%}

{%- macro monday_of(day) -%}
    cast(date_trunc('week', {{ day }}) as date)
{%- endmacro -%}

{%- macro day_of(moment) -%}
    cast(({{ moment }} at time zone 'UTC') as date)
{%- endmacro -%}

{%- macro hour_of(moment) -%}
    cast(extract(hour from ({{ moment }} at time zone 'UTC')) as integer)
{%- endmacro -%}

{#- Whole hours since 1970: much cheaper than truncating a moment that has a zone. -#}
{%- macro hour_number(moment) -%}
    (epoch_us({{ moment }}) // 3600000000)
{%- endmacro -%}

{%- macro minute_number(moment) -%}
    ((epoch_us({{ moment }}) // 60000000) % 60)
{%- endmacro -%}

{%- macro moment_of_hour(hours) -%}
    to_timestamp({{ hours }} * 3600)
{%- endmacro -%}

{#- How many of these numbers from 0 to 62 there are. -#}
{%- macro distinct_small(number) -%}
    bit_count(bit_or(cast(1 as bigint) << cast({{ number }} as integer)))
{%- endmacro -%}

{%- macro value_at_last(value, moment) -%}
    arg_max({{ value }}, {{ moment }})
{%- endmacro -%}

{%- macro add_days(day, days) -%}
    cast({{ day }} + to_days(cast({{ days }} as integer)) as date)
{%- endmacro -%}

{%- macro joined(text, ordered_by) -%}
    string_agg({{ text }}, '; ' order by {{ ordered_by }})
{%- endmacro -%}

{%- macro add_minutes(moment, minutes) -%}
    ({{ moment }} + to_seconds({{ minutes }} * 60))
{%- endmacro -%}

{#- Rows of Parquet files that Python writes below the home; an empty relation of the same columns while there are none. -#}
{%- macro written(source_name, table, pattern, columns) -%}
    {%- set lineage = source(source_name, table) -%}
    {%- set place = env_var("NPQ_HOME", ".npq") ~ "/" ~ pattern -%}
    {%- set found = [] -%}
    {%- if execute -%}
        {%- set found = run_query("select file from glob('" ~ place ~ "') limit 1").rows -%}
    {%- endif -%}
    {%- if found | length > 0 -%}
        {#- Files that were written before a column came to be do not have it. -#}
        {%- set described = "select column_name from (describe select * from read_parquet('" ~ place ~ "', hive_partitioning = false, union_by_name = true))" -%}
        {%- set there = run_query(described).columns[0].values() -%}
        (select {% for name, kind in columns.items() %}cast({{ name if name | replace('"', '') in there else "null" }} as {{ kind }}) as {{ name }}{{ ", " if not loop.last }}{% endfor %}
        from read_parquet('{{ place }}', hive_partitioning = false, union_by_name = true))
    {%- else -%}
        (select {% for name, kind in columns.items() %}cast(null as {{ kind }}) as {{ name }}{{ ", " if not loop.last }}{% endfor %}
        where false)
    {%- endif -%}
{%- endmacro -%}
