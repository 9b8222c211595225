{%- set columns = {
    'decision_id': 'varchar', 'domain': 'varchar', 'kind': 'varchar', 'decided_at': 'date', 'expected_cost': 'double',
    'naive_cost': 'double', 'lower_bound': 'double', 'realized_cost': 'double', 'hindsight_cost': 'double',
    'naive_realized_cost': 'double', 'basis': 'varchar'
} -%}

with ledger as (
    select * from {{ written('decisions', 'ledger', 'decisions/all/ledger/as_of=*/ledger.parquet', columns) }} as l
),

final as (
    select
        decided_at,
        domain,
        kind,
        count(*) as decisions,
        sum(expected_cost) as expected_cost,
        sum(naive_cost) as naive_cost,
        sum(lower_bound) as lower_bound,
        count(realized_cost) as settled,
        count(case when coalesce(basis, 'observed') = 'observed' then realized_cost end) as settled_observed,
        count(case when basis = 'expected' then realized_cost end) as settled_by_expectation,
        sum(case when realized_cost is not null then expected_cost end) as settled_expected_cost,
        sum(realized_cost) as realized_cost,
        sum(naive_realized_cost) as naive_realized_cost,
        sum(hindsight_cost) as hindsight_cost
    from ledger
    where domain = 'retail'
    group by decided_at, domain, kind
)

select * from final
