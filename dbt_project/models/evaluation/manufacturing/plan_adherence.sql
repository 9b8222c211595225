{%- set columns = {'as_of': 'date', 'period_start': 'date', 'machine_id': 'varchar', 'product_id': 'varchar', 'quantity': 'double'} -%}

with plans as (
    select *
    from {{ written('decisions', 'production_plan', 'decisions/manufacturing/production_plan/as_of=*/production_plan.parquet', columns) }}
        as p
),

production as (
    select * from {{ ref('production_day') }}
),

machines as (
    select * from {{ ref('machines') }}
),

-- What a plan said of the period that opened with it: what later plans changed was changed on purpose.
planned as (
    select
        as_of,
        machine_id,
        product_id,
        sum(quantity) as planned
    from plans
    where period_start = as_of
    group by as_of, machine_id, product_id
),

plan_days as (
    select
        as_of,
        {{ add_days('as_of', 7 if var('period') == 'week' else 1) }} as ends_on
    from planned
    group by as_of
),

-- Days that nothing has landed of yet judge no plan.
landed as (
    select max(produced_on) as last_day from production
),

judged as (
    select plan_days.*
    from plan_days
    cross join landed
    where plan_days.ends_on <= {{ add_days('landed.last_day', 1) }}
),

made as (
    select
        judged.as_of,
        production.machine_id,
        production.product_id,
        sum(production.good_quantity) as made
    from judged
    inner join production
        on production.produced_on >= judged.as_of and production.produced_on < judged.ends_on
    where production.machine_id in (select machine_id from planned)
    group by judged.as_of, production.machine_id, production.product_id
),

asked as (
    select planned.*
    from planned
    inner join judged on planned.as_of = judged.as_of
),

compared as (
    select
        coalesce(asked.as_of, made.as_of) as as_of,
        coalesce(asked.machine_id, made.machine_id) as machine_id,
        coalesce(asked.product_id, made.product_id) as product_id,
        coalesce(asked.planned, 0) as planned,
        coalesce(made.made, 0) as made
    from asked
    full outer join made
        on asked.as_of = made.as_of and asked.machine_id = made.machine_id and asked.product_id = made.product_id
),

final as (
    select
        compared.as_of,
        compared.machine_id,
        machines.line,
        compared.product_id,
        compared.planned,
        compared.made,
        least(compared.planned, compared.made) as made_as_planned,
        case when compared.planned > 0 then least(compared.made / compared.planned, 1) end as adherence
    from compared
    left join machines on compared.machine_id = machines.machine_id
    where compared.planned > 0 or compared.made > 0
)

select * from final
