with final as (
    select
        machine_id,
        setting,
        changed_at,
        value,
        decision_id,
        source_file,
        source_line
    from {{ ref('stg_manufacturing__setting_changes') }}
)

select * from final
