-- What the Conversions page asks, and the count that it reads from. Counts come from capi.day_figures(),
-- which is exact, unless more days are changing than a page has time to count.

-- name: bounds
-- A page waits for nothing, and changes nothing.
select
    set_config('transaction_read_only', 'on', true),
    set_config('statement_timeout', '8s', true);

-- name: count_touched_days
-- Count the days that changed since they were counted.
select capi.count_touched_days() as days;

-- name: feeds
-- The feeds that the ledger has heard of.
select distinct feed from capi.runs order by feed;

-- name: touched
-- How many days changed since they were counted.
select dataset_id, feed, count(distinct day) as days
from capi.touched_days
where feed = any(%(feeds)s) and day >= %(since)s
group by dataset_id, feed;

-- name: figures
-- The span's counts by day, as far apart as the page shows them.
with held as (
    select
        dataset_id, feed, day, state, reason, currency, match_keys, deliveries, value,
        timed, within_1_hour, within_2_hours, within_24_hours
    from capi.day_figures()
    where %(exact)s and feed = any(%(feeds)s) and day between %(since)s and %(until)s
    union all
    select
        dataset_id, feed, day, state, reason, currency, match_keys, deliveries, value,
        timed, within_1_hour, within_2_hours, within_24_hours
    from capi.day_counts
    where not %(exact)s and feed = any(%(feeds)s) and day between %(since)s and %(until)s
    union all
    select
        dataset_id, feed, day, state, null, nullif(currency, ''), 0, deliveries, value,
        0, 0, 0, 0
    from capi.removed
    where feed = any(%(feeds)s) and day between %(since)s and %(until)s
)
select
    dataset_id, feed, day, state::text as state,
    case when %(apart)s then reason end as reason,
    currency,
    case when %(apart)s then match_keys else 0 end as match_keys,
    sum(deliveries)::bigint as deliveries,
    sum(value) as value,
    sum(timed)::bigint as timed,
    sum(within_1_hour)::bigint as within_1_hour,
    sum(within_2_hours)::bigint as within_2_hours,
    sum(within_24_hours)::bigint as within_24_hours
from held
group by 1, 2, 3, 4, 5, 6, 7
order by feed, dataset_id, day, state;

-- name: counted_at
-- Since when the counts of a span stand that were not counted anew.
select min(counted_at) as counted_at
from capi.day_counts
where feed = any(%(feeds)s) and day >= %(since)s;

-- name: expiring
-- What Meta takes no more after a moment, unless it goes out before; to the hour.
with touched as materialized (
    select distinct dataset_id, feed, day
    from capi.touched_days
    where %(exact)s and feed = %(feed)s
), waiting as (
    select w.state, w.hour, w.deliveries
    from capi.day_waiting as w
    where w.feed = %(feed)s
        and w.hour >= %(after)s
        and w.hour < %(before)s
        and not exists (
            select from touched as t
            where t.feed = w.feed and t.dataset_id = w.dataset_id and t.day = w.day
        )
    union all
    select now.state, now.hour, now.deliveries
    from touched as t
    cross join lateral capi.count_waiting(t.dataset_id, t.feed, t.day) as now
    where now.hour >= %(after)s and now.hour < %(before)s
)
select state::text as state, sum(deliveries)::bigint as deliveries, min(hour) as oldest
from waiting
group by state
order by state;

-- name: traffic
-- Requests by day: how many, how long they took, and what Meta asked to wait.
select
    (a.started_at at time zone 'UTC')::date as day,
    count(*) as requests,
    count(*) filter (where a.outcome = 'throttled') as throttled,
    count(*) filter (where a.outcome = 'refused') as refused,
    count(*) filter (where a.outcome = 'unknown') as unknown,
    coalesce(sum(a.wait_seconds), 0)::bigint as waited,
    max(a.usage_percent) as usage_percent,
    percentile_cont(array[0.5, 0.95]) within group (
        order by extract(epoch from a.finished_at - a.started_at)
    ) as seconds
from capi.attempts as a
join capi.batches as b using (batch_id)
where b.feed = %(feed)s
    and a.started_at >= %(since)s
    and a.started_at < %(until)s
group by 1
order by 1;

-- name: gates
-- The latest gates of a feed.
select
    v.validation_id, v.suite, v.rows, v.quarantined, v.passed, v.seconds, v.validated_at,
    r.run_no, r.run_id
from capi.validations as v
join capi.runs as r using (run_no)
where v.feed = %(feed)s and v.result is not null
order by v.validation_id desc
limit %(most)s;

-- name: held
-- What is not at Meta, of all time, by state and reason.
with held as (
    select state, reason, deliveries, day
    from capi.day_figures()
    where %(exact)s and feed = %(feed)s and state <> 'accepted'
    union all
    select state, reason, deliveries, day
    from capi.day_counts
    where not %(exact)s and feed = %(feed)s and state <> 'accepted'
)
select
    state::text as state, reason, sum(deliveries)::bigint as deliveries,
    min(day) as earliest, max(day) as latest
from held
group by state, reason
order by sum(deliveries) desc, state, reason;

-- name: listed_days
-- How far back to look for some deliveries, by the counts: a rare reason is found without
-- reading the whole ledger.
with counted as (
    select day, sum(deliveries) as deliveries
    from capi.day_counts
    where feed = %(feed)s
        and (%(state)s::text is null or state::text = %(state)s)
        and (%(reason)s::text is null or reason = %(reason)s)
        and (%(since)s::date is null or day >= %(since)s)
        and (%(until)s::date is null or day <= %(until)s)
    group by day
    union all
    select distinct day, 0
    from capi.touched_days
    where feed = %(feed)s
        and (%(since)s::date is null or day >= %(since)s)
        and (%(until)s::date is null or day <= %(until)s)
), added as (
    select day, sum(deliveries) over (order by day desc) - deliveries as later
    from counted
)
select
    min(day)::timestamp at time zone 'UTC' as first,
    (max(day) + 1)::timestamp at time zone 'UTC' as last
from added
where later < %(most)s;

-- name: listed
-- Some deliveries, those that became known last first.
select
    dataset_id, feed, source_key, state::text as state, reason, event_name, event_time,
    cursor_at, batch_id, value, currency
from capi.deliveries
where feed = %(feed)s
    and cursor_at >= %(first)s
    and cursor_at < %(last)s
    and (%(state)s::text is null or state::text = %(state)s)
    and (%(reason)s::text is null or reason = %(reason)s)
order by cursor_at desc
limit %(most)s;

-- name: run_batches
-- A run's batches by state.
select
    state::text as state, count(*) as batches, sum(events)::bigint as events,
    sum(attempts)::bigint as requests
from capi.batches
where run_no = %(run_no)s
group by state
order by count(*) desc;

-- name: run_roots
-- A run's batches that were not simply accepted, with those that were cut from them
-- counted; the others are of no interest.
select
    b.batch_id, b.events, b.bytes, b.state::text as state, b.reason, b.attempts,
    b.created_at, b.settled_at,
    (select count(*) - 1 from capi.batches as cut where cut.root_id = b.batch_id) as pieces
from capi.batches as b
where b.run_no = %(run_no)s and b.parent_id is null and b.state <> 'accepted'
order by b.batch_id desc
limit %(most)s;

-- name: run_accepted
-- A run's latest batches that were accepted whole.
select
    b.batch_id, b.events, b.bytes, b.state::text as state, b.reason, b.attempts,
    b.created_at, b.settled_at, 0 as pieces
from capi.batches as b
where b.run_no = %(run_no)s and b.parent_id is null and b.state = 'accepted'
order by b.batch_id desc
limit %(most)s;

-- name: run_named
-- A run's number, by its name in Airflow.
select run_no, run_id, feed from capi.runs where run_id = any(%(run_ids)s) order by run_no desc;

-- name: run_results
-- What a run's gates found, the failures first.
select
    v.validation_id, r.position, r.expectation, r.column_name, r.reason, r.severity,
    r.status, r.failed_rows, r.share
from capi.validations as v
join capi.validation_results as r using (validation_id)
where v.run_no = %(run_no)s
order by v.validation_id desc, r.status = 'passed', r.position
limit 200;

-- name: validation_feed
-- Whose gate it is.
select feed from capi.validations where validation_id = %(validation_id)s;

-- name: family
-- A batch, those it was cut from, and all that was cut from the first of them.
select
    b.batch_id, b.parent_id, b.depth, b.run_no, b.feed, b.dataset_id, b.events, b.bytes,
    b.state::text as state, b.reason, b.attempts, b.doubt_since, b.created_at, b.settled_at
from capi.batches as b
where b.root_id = (select root_id from capi.batches where batch_id = %(batch_id)s)
order by b.depth, b.batch_id
limit 2100;

-- name: family_attempts
-- The requests of these batches.
select
    batch_id, seq, outcome::text as outcome, started_at, finished_at, http_status, code,
    subcode, fbtrace_id, events_received, messages, wait_seconds, usage_percent
from capi.attempts
where batch_id = any(%(batch_ids)s)
order by batch_id, seq;

-- name: batch_deliveries
-- Some of the deliveries that were in a batch last.
select
    dataset_id, feed, source_key, state::text as state, reason, event_name, event_time,
    cursor_at, batch_id, value, currency
from capi.deliveries
where batch_id = %(batch_id)s
order by source_key
limit %(most)s;

-- name: score_readings
-- When Meta's scores of datasets were read, or why not. What nobody asks for any more is
-- left out.
select dataset_id, surface, read_at, trouble, trouble_since
from capi.score_readings
where dataset_id = any(%(datasets)s) and next_at > capi.clock() - interval '1 day'
order by dataset_id, surface desc;

-- name: scores
-- The scores of a span, and each event's last ones, whenever they were read.
with last as (
    select dataset_id, surface, event_name, max(day) as day
    from capi.scores
    where dataset_id = any(%(datasets)s) and day <= %(until)s
    group by dataset_id, surface, event_name
)
select s.*
from capi.scores as s
join last as l using (dataset_id, surface, event_name)
where s.day between least(%(since)s, l.day) and %(until)s
order by dataset_id, surface desc, event_name, s.day;

-- name: score_keys
-- The match keys of each event's last scores.
with last as (
    select dataset_id, surface, event_name, max(day) as day
    from capi.scores
    where dataset_id = any(%(datasets)s) and day <= %(until)s
    group by dataset_id, surface, event_name
)
select k.*
from capi.score_keys as k
join last using (dataset_id, surface, event_name, day)
order by k.coverage desc nulls last, k.match_key;
