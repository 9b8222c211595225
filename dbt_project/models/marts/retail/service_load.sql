with cases as (
    select * from {{ ref('service_cases') }}
),

final as (
    select
        opened_on,
        topic,
        count(*) as requests,
        sum(case when closed_at is not null then 1 else 0 end) as closed,
        avg(hours_to_close) as mean_hours_to_close,
        avg(hours_to_first_response) as mean_hours_to_first_response
    from cases
    group by opened_on, topic
)

select * from final
