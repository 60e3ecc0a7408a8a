-- The questions people ask the ledger. Nothing here writes. The views are in
-- migrations/0003_views.sql.

-- name: status
-- Where the deliveries of each feed are, and since when the oldest of them wait.
with waiting as (
    select
        dataset_id,
        feed,
        min(event_time) filter (where state in ('pending', 'claimed')) as oldest_pending,
        count(*) filter (where state = 'in_doubt' and reason <> 'doubt.given_up')
            as open_doubts,
        min(doubt_since) filter (where state = 'in_doubt' and reason <> 'doubt.given_up')
            as oldest_doubt
    from capi.deliveries
    where state in ('pending', 'claimed', 'in_doubt')
    group by dataset_id, feed
)
select
    r.dataset_id, r.feed, r.total, r.accepted, r.refused, r.quarantined, r.withheld,
    r.expired, r.in_doubt, r.pending, w.oldest_pending, coalesce(w.open_doubts, 0) as open_doubts,
    w.oldest_doubt
from capi.reconciliation as r
left join waiting as w using (dataset_id, feed)
where %(feed)s::text is null or r.feed = %(feed)s
order by r.feed, r.dataset_id;

-- name: interval_status
-- Where the deliveries are whose rows became known in an interval.
select state::text as state, count(*) as deliveries
from capi.deliveries
where feed = %(feed)s
    and (%(dataset_id)s::text is null or dataset_id = %(dataset_id)s)
    and cursor_at >= %(start)s
    and cursor_at < %(end)s
group by state
order by state;

-- name: reasons
-- Why deliveries are not at Meta, the most common reason first.
select feed, state::text as state, reason, count(*) as deliveries, max(cursor_at) as latest
from capi.deliveries
where state <> 'accepted'
    and reason is not null
    and (%(feed)s::text is null or feed = %(feed)s)
group by feed, state, reason
order by count(*) desc, feed, reason
limit %(most)s;

-- name: events
-- The deliveries of a state, the latest first.
select
    dataset_id, feed, source_key, state::text as state, reason, event_name, event_id,
    event_time, cursor_at, batch_id, http_status, code, subcode, fbtrace_id, attempts,
    resends, changed_after_send, value, currency, recorded_at, settled_at
from capi.event_status
where feed = %(feed)s
    and state = %(state)s::capi.delivery_state
    and (%(reason)s::text is null or reason = %(reason)s)
order by cursor_at desc, source_key
limit %(most)s;

-- name: expiring
-- What is not at Meta and older than a moment: soon Meta takes it no more.
select state::text as state, count(*) as deliveries, min(event_time) as oldest
from capi.deliveries
where feed = %(feed)s
    and state in ('pending', 'claimed', 'quarantined')
    and event_time < %(before)s
group by state
order by state;

-- name: runs
-- The latest runs.
select
    run_no, run_id, feed, dataset_id, mode, state, interval_start, interval_end, plan,
    outcome, planned_at, reported_at
from capi.runs
where %(feed)s::text is null or feed = %(feed)s
order by planned_at desc, run_no desc
limit %(most)s;

-- name: run
-- One run, by its number or by its name.
select
    run_no, run_id, feed, dataset_id, mode, state, interval_start, interval_end, plan,
    outcome, planned_at, reported_at
from capi.runs
where run_no = %(run_no)s::bigint or run_id = %(run_id)s::text;

-- name: run_deliveries
-- Where the deliveries are that a run was the last to touch.
select state::text as state, reason, count(*) as deliveries
from capi.deliveries
where run_no = %(run_no)s
group by state, reason
order by count(*) desc, state, reason;

-- name: run_batches
-- A run's batches and requests.
select
    count(*) as batches,
    count(*) filter (where state = 'split') as splits,
    coalesce(sum(attempts), 0)::bigint as requests
from capi.batches
where run_no = %(run_no)s;

-- name: run_validations
-- A run's gates.
select validation_id, suite, rows, quarantined, passed, seconds, validated_at
from capi.validations
where run_no = %(run_no)s
order by validation_id;

-- name: deliveries_called
-- The deliveries that have one of these source keys, or this event id. The short list of
-- feeds lets PostgreSQL find both by the indexes.
with feeds as (
    select distinct dataset_id, feed
    from capi.runs
    where %(feed)s::text is null or feed = %(feed)s
), found as (
    select d.*
    from feeds as f
    join capi.deliveries as d
        on d.dataset_id = f.dataset_id and d.feed = f.feed
        and d.source_key = any(%(source_keys)s::text[])
    union
    select d.*
    from feeds as f
    join capi.deliveries as d
        on d.dataset_id = f.dataset_id and d.feed = f.feed
        and d.event_id = %(event_id)s
)
select
    dataset_id, feed, source_key, state::text as state, reason, event_name, event_id,
    event_time, cursor_at, batch_id, run_no, validation_id, match_keys, value, currency,
    nullif(not_before, 'epoch') as not_before, doubt_since, resends, changed_after_send,
    recorded_at, settled_at
from found
order by feed, dataset_id, source_key;

-- name: erased
-- Which of these source keys were erased, and when.
select f.feed, one.source_key, e.erased_at
from unnest(%(feeds)s::text[]) as f (feed)
cross join unnest(%(source_keys)s::text[]) as one (source_key)
cross join capi.installation as house
join capi.erased as e
    on e.mark = capi.mark_of(house.digest_key, f.feed, one.source_key)
order by f.feed, one.source_key;

-- name: lineage
-- A batch and those it was cut from, the first one first.
with recursive line as (
    select b.* from capi.batches as b where b.batch_id = %(batch_id)s
    union all
    select b.*
    from capi.batches as b
    join line on b.batch_id = line.parent_id
)
select
    batch_id, parent_id, depth, run_no, events, bytes, state::text as state, reason,
    attempts, doubt_since, created_at, settled_at
from line
order by depth;

-- name: attempts
-- The requests made for some batches.
select
    batch_id, seq, outcome::text as outcome, started_at, finished_at, http_status, code,
    subcode, fbtrace_id, events_received, messages, wait_seconds, usage_percent
from capi.attempts
where batch_id = any(%(batch_ids)s::bigint[])
order by batch_id, seq;

-- name: validation
-- A gate, with the expectations that gave a reason.
select
    v.validation_id, v.suite, v.validated_at,
    coalesce(
        array_agg(r.expectation order by r.position) filter (where r.reason = %(reason)s),
        '{}'
    ) as expectations
from capi.validations as v
left join capi.validation_results as r using (validation_id)
where v.validation_id = %(validation_id)s
group by v.validation_id;

-- name: days
-- A feed's days since one, the latest first.
select
    day, total, accepted, refused, quarantined, withheld, expired, in_doubt, pending,
    accepted_value
from capi.daily_summary
where feed = %(feed)s and dataset_id = %(dataset_id)s and day >= %(since)s
order by day desc;

-- name: coverage
-- Of the accepted events since a day, the share that had each match key; keys never seen
-- are left out.
select
    match_key,
    sum(with_key)::bigint as with_key,
    (sum(with_key) / sum(accepted))::float8 as share
from capi.match_key_coverage
where feed = %(feed)s and dataset_id = %(dataset_id)s and day >= %(since)s
group by match_key
having sum(with_key) > 0
order by sum(with_key) desc, match_key;

-- name: freshness
-- How long accepted events took, day by day since one, the latest first.
select
    day, accepted, median_delay, p95_delay, within_1_hour::float8 as within_1_hour,
    within_2_hours::float8 as within_2_hours, within_24_hours::float8 as within_24_hours
from capi.freshness
where feed = %(feed)s and dataset_id = %(dataset_id)s and day >= %(since)s
order by day desc;
