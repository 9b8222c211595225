{#- The accepted rows of a landing table. The path is taken from the environment when the model runs, so that the project,
    parsed once, serves any home; source() keeps the lineage. -#}
{%- macro raw(domain, table) -%}
    {%- set lineage = source(domain, table) -%}
    read_parquet('{{ env_var("NPQ_RAW", "raw") }}/{{ domain }}/{{ table }}.parquet')
{%- endmacro -%}
