{%- set columns = {'message_id': 'varchar', 'kind': 'varchar', 'as_of': 'date'} -%}

with messages as (
    select distinct
        message_id,
        kind,
        as_of
    from {{ written('decisions', 'messages', 'decisions/retail/messages/as_of=*/messages.parquet', columns) }} as m
),

replies as (
    select
        message_id,
        max(case when kind in ('opened', 'clicked', 'replied') then 1 else 0 end) as opened,
        max(case when kind = 'clicked' then 1 else 0 end) as clicked,
        max(case when kind = 'replied' then 1 else 0 end) as replied,
        max(case when kind = 'unsubscribed' then 1 else 0 end) as unsubscribed,
        max(case when kind = 'bounced' then 1 else 0 end) as bounced
    from {{ ref('message_replies') }}
    group by message_id
),

final as (
    select
        {{ monday_of('messages.as_of') }} as week_start,
        messages.kind,
        count(*) as messages,
        coalesce(sum(replies.opened), 0) as opened,
        coalesce(sum(replies.clicked), 0) as clicked,
        coalesce(sum(replies.replied), 0) as replied,
        coalesce(sum(replies.unsubscribed), 0) as unsubscribed,
        coalesce(sum(replies.bounced), 0) as bounced
    from messages
    left join replies on messages.message_id = replies.message_id
    group by {{ monday_of('messages.as_of') }}, messages.kind
)

select * from final
