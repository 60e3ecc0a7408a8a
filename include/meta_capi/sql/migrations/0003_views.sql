-- The questions people ask most, as views: for SQL clients and BI tools; the command line
-- and the page read the same. Days are UTC days of `cursor_at`: when the row became known.
-- `claimed` is shown as pending: it is on its way.

create view capi.event_status as
select
    d.dataset_id,
    d.feed,
    d.source_key,
    d.state,
    d.reason,
    d.event_name,
    d.event_id,
    d.event_time,
    d.cursor_at,
    d.batch_id,
    a.http_status,
    a.code,
    a.subcode,
    a.fbtrace_id,
    coalesce(b.attempts, 0) as attempts,
    d.resends,
    d.changed_after_send,
    d.value,
    d.currency,
    d.recorded_at,
    d.settled_at
from capi.deliveries as d
left join capi.batches as b using (batch_id)
left join lateral (
    select each.http_status, each.code, each.subcode, each.fbtrace_id
    from capi.attempts as each
    where each.batch_id = d.batch_id
    order by each.seq desc
    limit 1
) as a on true;
comment on view capi.event_status is
    'One line per delivery: where it is and why, with what Meta last said of its batch.';
comment on column capi.event_status.source_key is
    'The advertiser''s own key; several columns are joined with |.';
comment on column capi.event_status.reason is
    'A code of the catalogue; `meta-capi reasons CODE` tells its meaning and what to do.';
comment on column capi.event_status.attempts is
    'Requests made for the last batch the delivery was in.';
comment on column capi.event_status.fbtrace_id is
    'Meta''s name for its answer; quote it to Meta''s support.';
comment on column capi.event_status.changed_after_send is
    'The row was changed after Meta accepted the event. It is not sent again.';

create view capi.daily_summary as
with counted as (
    select
        dataset_id,
        feed,
        (cursor_at at time zone 'UTC')::date as day,
        state,
        currency,
        count(*) as events,
        sum(value) as value
    from capi.deliveries
    group by 1, 2, 3, 4, 5
    union all
    select dataset_id, feed, day, state, nullif(currency, ''), deliveries, value
    from capi.removed
), parts as (
    select
        dataset_id, feed, day, state, currency, sum(events) as events, sum(value) as value
    from counted
    group by 1, 2, 3, 4, 5
)
select
    dataset_id,
    feed,
    day,
    sum(events)::bigint as total,
    coalesce(sum(events) filter (where state = 'accepted'), 0)::bigint as accepted,
    coalesce(sum(events) filter (where state = 'refused'), 0)::bigint as refused,
    coalesce(sum(events) filter (where state = 'quarantined'), 0)::bigint as quarantined,
    coalesce(sum(events) filter (where state = 'withheld'), 0)::bigint as withheld,
    coalesce(sum(events) filter (where state = 'expired'), 0)::bigint as expired,
    coalesce(sum(events) filter (where state = 'in_doubt'), 0)::bigint as in_doubt,
    coalesce(sum(events) filter (where state in ('pending', 'claimed')), 0)::bigint
        as pending,
    coalesce(
        jsonb_object_agg(currency, value order by currency)
            filter (where state = 'accepted' and currency is not null and value is not null),
        '{}'
    ) as accepted_value
from parts
group by dataset_id, feed, day;
comment on view capi.daily_summary is
    'Deliveries by feed, day and state, and the value that Meta accepted; those that the '
    'ledger no longer holds are counted.';
comment on column capi.daily_summary.accepted_value is
    'Sums by currency, as {"CHF": 120.50, "EUR": 80}.';

create view capi.match_key_coverage as
with masks as (
    select
        dataset_id,
        feed,
        (cursor_at at time zone 'UTC')::date as day,
        match_keys,
        count(*) as events
    from capi.deliveries
    where state = 'accepted'
    group by 1, 2, 3, 4
)
select
    masks.dataset_id,
    masks.feed,
    masks.day,
    known.name as match_key,
    sum(masks.events)::bigint as accepted,
    coalesce(sum(masks.events) filter (where masks.match_keys & known.bit <> 0), 0)::bigint
        as with_key,
    round(
        coalesce(sum(masks.events) filter (where masks.match_keys & known.bit <> 0), 0)
            / sum(masks.events),
        4
    ) as share
from masks
-- The bits of match_keys.py, which never change. A test compares them.
cross join (values
    ('em', 1), ('ph', 2), ('fn', 4), ('ln', 8), ('db', 16), ('ge', 32), ('ct', 64),
    ('st', 128), ('zp', 256), ('country', 512), ('external_id', 1024),
    ('client_ip_address', 2048), ('client_user_agent', 4096), ('fbc', 8192),
    ('fbp', 16384), ('subscription_id', 32768), ('fb_login_id', 65536),
    ('lead_id', 131072), ('madid', 262144)
) as known (name, bit)
group by masks.dataset_id, masks.feed, masks.day, known.name;
comment on view capi.match_key_coverage is
    'Of the accepted events of a feed and day, the share that had each match key. Of what '
    'the ledger no longer holds it says nothing.';

create view capi.freshness as
select
    dataset_id,
    feed,
    (cursor_at at time zone 'UTC')::date as day,
    count(*) as accepted,
    percentile_cont(0.5) within group (order by settled_at - event_time) as median_delay,
    percentile_cont(0.95) within group (order by settled_at - event_time) as p95_delay,
    round(avg((settled_at - event_time <= interval '1 hour')::integer), 4)
        as within_1_hour,
    round(avg((settled_at - event_time <= interval '2 hours')::integer), 4)
        as within_2_hours,
    round(avg((settled_at - event_time <= interval '24 hours')::integer), 4)
        as within_24_hours
from capi.deliveries
where state = 'accepted'
group by 1, 2, 3;
comment on view capi.freshness is
    'How long accepted events took from the conversion to Meta''s yes, by feed and day. '
    'The fresher, the more Meta can do with an event.';

create view capi.reconciliation as
with parts as (
    select dataset_id, feed, state, count(*) as events
    from capi.deliveries
    group by dataset_id, feed, state
    union all
    select dataset_id, feed, state, deliveries
    from capi.removed
)
select
    dataset_id,
    feed,
    sum(events)::bigint as total,
    coalesce(sum(events) filter (where state = 'accepted'), 0)::bigint as accepted,
    coalesce(sum(events) filter (where state = 'refused'), 0)::bigint as refused,
    coalesce(sum(events) filter (where state = 'quarantined'), 0)::bigint as quarantined,
    coalesce(sum(events) filter (where state = 'withheld'), 0)::bigint as withheld,
    coalesce(sum(events) filter (where state = 'expired'), 0)::bigint as expired,
    coalesce(sum(events) filter (where state = 'in_doubt'), 0)::bigint as in_doubt,
    coalesce(sum(events) filter (where state in ('pending', 'claimed')), 0)::bigint
        as pending
from parts
group by dataset_id, feed;
comment on view capi.reconciliation is
    'Every delivery of a feed has one state, and those that the ledger no longer holds had '
    'one: total = accepted + refused + quarantined + '
    'withheld + expired + in_doubt + pending.';
