-- The checks of include/expectations/offline_purchases.json, as somebody would write them
-- by hand for PostgreSQL: the interval is read once, every check is counted, and the keys
-- that each critical check finds come back with it.
with checked as (
    select
        order_id,
        order_id is null as key_missing,
        order_id is not null and count(*) over (partition by order_id) > 1 as key_duplicate,
        purchased_at is null as time_missing,
        purchased_at < '2000-01-01T00:00:00+00:00' as time_ancient,
        purchased_at > loaded_at + interval '1 day' as time_in_future,
        amount is null as value_missing,
        amount < 0 as value_negative,
        currency <> all ({currencies}) as currency_unknown,
        marketing_consent is null as consent_unknown,
        email is null as email_missing,
        email is null and phone is null as unreachable,
        email !~ '^\s*([^@\s]+@[^@\s]+\.[^@\s]+|[0-9A-Fa-f]{{64}}.*)\s*$' as email_odd
    from {lot}
    where loaded_at >= {start} and loaded_at < {end}
)
select
    count(*) as rows,
    array_agg(order_id) filter (where key_missing) as key_missing,
    array_agg(order_id) filter (where key_duplicate) as key_duplicate,
    array_agg(order_id) filter (where time_missing) as time_missing,
    array_agg(order_id) filter (where time_ancient) as time_ancient,
    array_agg(order_id) filter (where time_in_future) as time_in_future,
    array_agg(order_id) filter (where value_missing) as value_missing,
    array_agg(order_id) filter (where value_negative) as value_negative,
    count(*) filter (where currency_unknown) as currency_unknown,
    count(*) filter (where consent_unknown) as consent_unknown,
    count(*) filter (where email_missing) as email_missing,
    count(*) filter (where unreachable) as unreachable,
    count(*) filter (where email_odd) as email_odd,
    count(*) filter (
        where key_missing or key_duplicate or time_missing or time_ancient
            or time_in_future or value_missing or value_negative
    ) as quarantined
from checked
