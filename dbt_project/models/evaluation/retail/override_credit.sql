{%- set columns = {
    'decision_id': 'varchar', 'as_of': 'date', 'planner': 'varchar', 'expected_cost': 'double',
    'engine_expected_cost': 'double', 'override_realized_cost': 'double', 'engine_realized_cost': 'double',
    'credit': 'double'
} -%}

with overrides as (
    select * from {{ written('decisions', 'ledger', 'evaluations/retail/overrides/as_of=*/overrides.parquet', columns) }} as o
),

final as (
    select
        as_of,
        coalesce(planner, '') as planner,
        count(*) as overrides,
        sum(engine_expected_cost - expected_cost) as expected_credit,
        count(credit) as settled,
        sum(override_realized_cost) as override_realized_cost,
        sum(engine_realized_cost) as engine_realized_cost,
        sum(credit) as credit
    from overrides
    group by as_of, coalesce(planner, '')
)

select * from final
