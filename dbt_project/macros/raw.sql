{#- The accepted rows of a landing table. The path is taken from the environment when the model runs, so that the project,
    parsed once, serves any home; source() keeps the lineage. -#}
{%- macro raw(domain, table) -%}
    {%- set lineage = source(domain, table) -%}
    read_parquet('{{ env_var("NPQ_RAW", "raw") }}/{{ domain }}/{{ table }}.parquet')
{%- endmacro -%}

{#- The same for a table that is kept by day, in a folder a day. -#}
{%- macro raw_by_day(domain, table, day) -%}
    {%- set lineage = source(domain, table) -%}
    read_parquet(
        '{{ env_var("NPQ_RAW", "raw") }}/{{ domain }}/{{ table }}.parquet/*/*.parquet',
        hive_partitioning = true, hive_types = {'{{ day }}': date}
    )
{%- endmacro -%}

{#- Days of such a table, each with a hash of what it holds. -#}
{%- macro raw_days(domain, table) -%}
    (select
        day,
        string_agg(slot || ':' || state, ',' order by slot) as state
    from read_parquet('{{ env_var("NPQ_RAW", "raw") }}/.state/{{ domain }}.{{ table }}.days.parquet')
    group by day)
{%- endmacro -%}

{#- What an incremental model was built from, beside it. -#}
{%- macro built_days(relation) -%}
    "{{ relation.schema }}"."{{ relation.identifier }}__days"
{%- endmacro -%}

{#- The days, as a list of literals, that a model which keeps days must build: all that hold something else than when it was
    built last. -#}
{%- macro days_to_build(domain, table, relation) -%}
    {%- set found = [] -%}
    {%- if execute -%}
        {%- set query -%}
            select coalesce(now.day, built.day)
            from {{ raw_days(domain, table) }} as now
            full outer join {{ built_days(relation) }} as built on now.day = built.day
            where now.state is distinct from built.state
            order by 1
        {%- endset -%}
        {%- for row in run_query(query).rows -%}
            {%- do found.append("date '" ~ row[0] ~ "'") -%}
        {%- endfor -%}
    {%- endif -%}
    {{ found | join(", ") if found else "null" }}
{%- endmacro -%}

{#- Hooks of such a model: what is built again is removed before, and what it was built from is noted after. -#}
{%- macro remove_days(domain, table, day) -%}
    {%- if is_incremental() -%}
        delete from {{ this }} where {{ day }} in ({{ days_to_build(domain, table, this) }})
    {%- else -%}
        select 1
    {%- endif -%}
{%- endmacro -%}

{%- macro note_days(domain, table) -%}
    create or replace table {{ built_days(this) }} as select * from {{ raw_days(domain, table) }} as days
{%- endmacro -%}
