{{ config(schema='personal') }}

with final as (
    select
        customer_id,
        customer_key
    from
        {{ written('personal', 'pseudonyms', 'personal/pseudonyms.parquet',
        {'customer_id': 'varchar', 'customer_key': 'varchar'}) }}
)

select * from final
