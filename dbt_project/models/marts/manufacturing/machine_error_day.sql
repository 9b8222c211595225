with errors as (
    select * from {{ ref('stg_manufacturing__machine_errors') }}
),

final as (
    select
        {{ day_of('occurred_at') }} as occurred_on,
        machine_id,
        error_code,
        count(*) as errors
    from errors
    group by {{ day_of('occurred_at') }}, machine_id, error_code
)

select * from final
