with replies as (
    select * from {{ ref('stg_retail__message_replies') }}
),

customer_keys as (
    select * from {{ ref('int_retail__customer_keys') }}
),

final as (
    select
        replies.message_id,
        customer_keys.customer_key,
        replies.kind,
        replies.replied_at
    from replies
    inner join customer_keys on replies.customer_id = customer_keys.customer_id
)

select * from final
