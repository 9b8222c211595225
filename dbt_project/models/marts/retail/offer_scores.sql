with outcomes as (
    select * from {{ ref('offer_outcomes') }}
),

arms as (
    select
        offer_id,
        min(sent_on) as sent_on,
        max(ends_on) as ends_on,
        sum(case when held_out then 0 else 1 end) as sent,
        sum(case when held_out then 1 else 0 end) as controls,
        sum(case when redeemed and not held_out then 1 else 0 end) as redeemed,
        avg(case when not held_out then profit end) as profit_sent,
        avg(case when held_out then profit end) as profit_control,
        var_samp(case when not held_out then profit end) / nullif(count(case when not held_out then profit end), 0) as error_sent,
        var_samp(case when held_out then profit end) / nullif(count(case when held_out then profit end), 0) as error_control
    from outcomes
    group by offer_id
),

final as (
    select
        offer_id,
        sent_on,
        ends_on,
        sent,
        controls,
        redeemed,
        profit_sent,
        profit_control,
        profit_sent - profit_control as effect,
        sqrt(error_sent + error_control) as effect_error
    from arms
)

select * from final
