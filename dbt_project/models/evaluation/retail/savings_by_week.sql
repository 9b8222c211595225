with costs as (
    select * from {{ ref('decision_costs') }}
),

final as (
    select
        {{ monday_of('decided_at') }} as week_start,
        kind,
        sum(decisions) as decisions,
        sum(naive_cost - expected_cost) as expected_saving,
        sum(settled) as settled,
        sum(settled_by_expectation) as settled_by_expectation,
        sum(naive_realized_cost - realized_cost) as realized_saving,
        sum(realized_cost - hindsight_cost) as regret
    from costs
    group by {{ monday_of('decided_at') }}, kind
)

select * from final
