-- Every question the ledger is asked while conversions are delivered. The letters are the
-- edges of lifecycle.py. Reports and pages have their own file, insight.sql.

-- name: installation
-- The ledger's fingerprint key.
select digest_key from capi.installation;

-- name: clock
-- The moment by which leases run.
select capi.clock();

-- name: open_run
-- A run is planned; planning it again (a cleared task) finds the same row.
insert into capi.runs (run_id, feed, dataset_id, mode, interval_start, interval_end, plan)
values (
    %(run_id)s, %(feed)s, %(dataset_id)s, %(mode)s, %(interval_start)s, %(interval_end)s,
    %(plan)s
)
on conflict (run_id) do update set
    mode = excluded.mode,
    dataset_id = excluded.dataset_id,
    interval_start = excluded.interval_start,
    interval_end = excluded.interval_end,
    plan = excluded.plan,
    state = 'planned',
    outcome = '{}',
    planned_at = capi.clock(),
    reported_at = null
returning run_no;

-- name: find_run
-- The run that `plan` recorded.
select run_no, feed, dataset_id from capi.runs where run_id = %(run_id)s;

-- name: planned_interval
-- The interval that `plan` chose for a run.
select interval_start, interval_end from capi.runs where run_id = %(run_id)s;

-- name: unread_since
-- The first moment before a run's own interval that no run was ever planned for, since the
-- first of all runs, or since `floor`. None where nothing was left out. A run whose interval
-- ends in the future cannot have read what came after it was planned.
with planned as (
    select tstzrange(interval_start, least(interval_end, planned_at)) as span
    from capi.runs
    where feed = %(feed)s
        and dataset_id = %(dataset_id)s
        and run_id <> %(run_id)s
        and mode = 'send'
        and interval_start < least(%(start)s, planned_at)
), whole as (
    select
        tstzrange(
            least(greatest(min(lower(span)), %(floor)s), %(start)s), %(start)s
        )::tstzmultirange - range_agg(span) as gaps
    from planned
    having count(*) > 0
)
select lower(gaps) as since from whole where not isempty(gaps);

-- name: close_run
-- The run's last word.
update capi.runs
set state = %(state)s, outcome = %(outcome)s, reported_at = capi.clock()
where run_no = %(run_no)s;

-- name: open_validation
-- A gate gets its number before it puts anything in quarantine.
insert into capi.validations (run_no, feed, suite)
values (%(run_no)s, %(feed)s, %(suite)s)
returning validation_id;

-- name: close_validation
-- The gate's verdict.
with run as (
    update capi.runs
    set state = case when %(passed)s then 'validated' else 'stopped' end
    where run_no = (
        select run_no from capi.validations where validation_id = %(validation_id)s
    )
)
update capi.validations
set rows = %(rows)s, quarantined = %(quarantined)s, passed = %(passed)s,
    seconds = %(seconds)s, result = %(result)s
where validation_id = %(validation_id)s;

-- name: latest_validations
-- What Data Docs are built from.
select result from capi.validations
where result is not null
order by validation_id desc
limit %(limit)s;

-- name: add_validation_result
-- One expectation's outcome: counts, never values.
insert into capi.validation_results (
    validation_id, position, expectation, column_name, reason, severity, status,
    failed_rows, share
) values (
    %(validation_id)s, %(position)s, %(expectation)s, %(column_name)s, %(reason)s,
    %(severity)s, %(status)s, %(failed_rows)s, %(share)s
)
on conflict (validation_id, position) do nothing;

-- name: number_worker
-- A worker's number, before it sits down: one that is interrupted while it does can leave.
select
    nextval(pg_get_serial_sequence('capi.workers', 'worker_id')) as worker_id,
    capi.clock() as now;

-- name: arrive
-- A worker sits down: its number fences whatever it writes. Refused (no row) if the schema
-- is another program's.
insert into capi.workers (worker_id, run_no, feed, dataset_id, host, pid, lease_until)
overriding system value
select
    %(worker_id)s, %(run_no)s, %(feed)s, %(dataset_id)s, %(host)s, %(pid)s,
    capi.clock() + make_interval(secs => %(lease_seconds)s)
where (select max(version) from capi.migrations) = %(schema)s
returning worker_id;

-- name: meet
-- One worker's arrival and its leave do not overlap: a signal cuts the line of an arrival
-- whose COMMIT may still be at work.
select pg_advisory_xact_lock(hashtext('capi.workers'), hashint8(%(worker_id)s));

-- name: renew
-- The lease goes on, unless it is already over: an ended lease never comes back.
update capi.workers
set lease_until = capi.clock() + make_interval(secs => %(lease_seconds)s)
where worker_id = %(worker_id)s and ended_at is null and lease_until > capi.clock()
returning lease_until;

-- name: make_incoming
-- The transaction's own table for the rows just read.
select capi.make_incoming();

-- name: house
-- What a claim must mind: whether anything was erased, or removed when its time was over, and
-- whether the ledger was put back from an older copy.
select
    exists (select from capi.erased) as erased,
    exists (select from capi.removed where cause = 'retention') as removed,
    restored_at is not null as restored
from capi.installation;

-- name: set_aside
-- Rows of which the ledger keeps nothing: those of erased conversions, whose key it must
-- not learn again, and old ones of days that it no longer holds, which are counted there.
with aside as (
    select
        i.ordinal,
        exists (
            select from capi.erased as e
            where e.mark = capi.mark_of(house.digest_key, %(feed)s, i.source_key)
        ) as erased,
        i.reason = 'window.over'
        and exists (
            select from capi.removed as r
            where r.dataset_id = %(dataset_id)s
                and r.feed = %(feed)s
                and r.day = (i.cursor_at at time zone 'UTC')::date
                and r.cause = 'retention'
        )
        and (
            select true from capi.deliveries as d
            where d.dataset_id = %(dataset_id)s
                and d.feed = %(feed)s
                and d.source_key = i.source_key
            limit 1
        ) is null as bygone
    from incoming as i
    cross join capi.installation as house
)
delete from incoming as i
using aside as a
where a.ordinal = i.ordinal and (a.erased or a.bygone)
returning
    i.ordinal, i.source_key,
    case when a.erased then 'withheld' else 'expired' end as state,
    case when a.erased then 'erased' else 'window.over' end as reason;

-- name: forget
-- Remove the deliveries of some keys, save those on a desk.
select state::text as state, deliveries from capi.forget(%(feed)s, %(keys)s);

-- name: suspect
-- l: rows that became known before the ledger was put back from an older copy, and of which
-- it does not know what became of them since: they may have been sent. Not those whose event
-- is, or is about to be, another conversion's: that one may have been.
insert into capi.deliveries as d (
    dataset_id, feed, source_key, event_name, event_id, state, reason, event_time,
    cursor_at, run_no, match_keys, digest, value, currency, not_before, doubt_since
)
select
    %(dataset_id)s, %(feed)s, i.source_key, i.event_name, i.event_id, 'in_doubt',
    'ledger.restored', i.event_time, i.cursor_at, %(run_no)s, i.match_keys, i.digest,
    i.value, i.currency, 'epoch', house.restored_from
from (
    select distinct on (event_name, event_id) *
    from incoming
    where state = 'pending' and reason is null
    order by event_name, event_id, source_key
) as i
join capi.installation as house on i.cursor_at < house.restored_at
where not exists (
    select from capi.deliveries as one
    where one.dataset_id = %(dataset_id)s
        and one.event_name = i.event_name
        and one.event_id = i.event_id
        and (one.feed, one.source_key) <> (%(feed)s, i.source_key)
)
order by i.source_key
on conflict (dataset_id, feed, source_key) do update set
    event_name = excluded.event_name,
    event_id = excluded.event_id,
    state = 'in_doubt',
    reason = 'ledger.restored',
    event_time = excluded.event_time,
    cursor_at = excluded.cursor_at,
    run_no = excluded.run_no,
    validation_id = null,
    match_keys = excluded.match_keys,
    digest = excluded.digest,
    value = excluded.value,
    currency = excluded.currency,
    not_before = 'epoch',
    doubt_since = excluded.doubt_since,
    settled_at = capi.clock()
-- What waited was looked at when the ledger was put back.
where d.state in ('quarantined', 'withheld', 'expired', 'refused')
    and coalesce(d.settled_at, d.recorded_at) < (
        select house.restored_at from capi.installation as house
    )
    and capi.may_claim(
        d, excluded.digest, %(validation_id)s, %(resend)s,
        make_interval(secs => %(resend_window)s), %(most_resends)s
    );

-- name: take_new
-- a b h i j: what the ledger has never seen, neither the key nor the event: put on this
-- worker's desk if it was cut into a batch, held if not. In the keys' order, in which every
-- worker takes its locks. Returns the rows that the ledger knows.
with taken as (
    insert into capi.deliveries (
        dataset_id, feed, source_key, event_name, event_id, state, reason, event_time,
        cursor_at, batch_id, run_no, match_keys, digest, value, currency, not_before,
        recorded_at
    )
    select
        %(dataset_id)s, %(feed)s, i.source_key, i.event_name, i.event_id,
        case when i.batch_id is null then i.state else 'claimed' end, i.reason,
        i.event_time, i.cursor_at, i.batch_id, %(run_no)s, i.match_keys, i.digest,
        i.value, i.currency,
        case when i.batch_id is null and i.state = 'pending' then coalesce(
            i.not_before,
            case when i.reason = 'throttled' then capi.wait_of(%(worker_id)s) end,
            'epoch'
        ) end,
        clock.now
    from incoming as i
    cross join (select capi.clock() as now) as clock
    order by i.source_key
    on conflict do nothing
    returning source_key
)
select i.ordinal
from incoming as i
where not exists (select from taken as t where t.source_key = i.source_key);

-- name: compare
-- Which of some rows must stay as the ledger has them, how they stand, and whether anything
-- of them is to be written down. One lookup a row, whatever the planner knows: of a feed
-- without statistics it expects one delivery, and would pair each with every row.
select
    i.ordinal,
    d.state::text as state,
    case
        when d.state = 'in_doubt' and d.digest is distinct from i.digest
            and d.reason <> 'doubt.given_up'
        then 'doubt.row_changed'
        else d.reason
    end as reason,
    capi.has_news(d, i.cursor_at, i.digest) as has_news
from unnest(%(ordinals)s::integer[]) as known (ordinal)
join incoming as i using (ordinal)
cross join lateral (
    select * from capi.deliveries as one
    where one.dataset_id = %(dataset_id)s
        and one.feed = %(feed)s
        and one.source_key = i.source_key
    limit 1
) as d
where case
    when i.state = 'pending' and i.reason is null then not capi.may_claim(
        d, i.digest, %(validation_id)s, %(resend)s,
        make_interval(secs => %(resend_window)s), %(most_resends)s
    )
    else d.state not in ('pending', 'quarantined', 'withheld', 'expired')
        or capi.held_by_gate(d, %(validation_id)s)
end;

-- name: find_taken
-- Of some rows those whose event_id already belongs to another conversion of this dataset.
select i.ordinal
from unnest(%(ordinals)s::integer[]) as known (ordinal)
join incoming as i using (ordinal)
cross join lateral (
    select one.feed, one.source_key from capi.deliveries as one
    where one.dataset_id = %(dataset_id)s
        and one.event_name = i.event_name
        and one.event_id = i.event_id
    limit 1
) as d
where (d.feed, d.source_key) <> (%(feed)s, i.source_key);

-- name: keep_back
-- d: rows that might go out, but shall not now.
update incoming as i
set state = 'pending', reason = %(reason)s
from unnest(%(ordinals)s::integer[]) as kept (ordinal)
where i.ordinal = kept.ordinal;

-- name: free_taken
-- i: those rows are held, and leave the event_id to its owner.
update incoming as i
set state = 'quarantined', reason = 'event_id.taken', event_id = null, digest = null
from unnest(%(ordinals)s::integer[]) as freed (ordinal)
where i.ordinal = freed.ordinal;

-- name: touch
-- Rows read again that stay as they are: the interval they stand in, and whether they
-- were changed since they went out.
insert into capi.deliveries as d (
    dataset_id, feed, source_key, event_name, event_id, state, reason, event_time,
    cursor_at, run_no, match_keys, digest, value, currency, not_before
)
select
    %(dataset_id)s, %(feed)s, i.source_key, i.event_name, i.event_id, i.state, i.reason,
    i.event_time, i.cursor_at, %(run_no)s, i.match_keys, i.digest, i.value, i.currency,
    case when i.state = 'pending' then 'epoch'::timestamptz end
from unnest(%(ordinals)s::integer[]) as kept (ordinal)
join incoming as i using (ordinal)
order by i.source_key
on conflict (dataset_id, feed, source_key) do update set
    cursor_at = excluded.cursor_at,
    changed_after_send = d.changed_after_send
        or (d.state = 'accepted' and excluded.digest is not null
            and d.digest <> excluded.digest),
    reason = case
        when d.state = 'in_doubt' and d.digest is distinct from excluded.digest
            and d.reason <> 'doubt.given_up'
        then 'doubt.row_changed'
        else d.reason
    end
where capi.has_news(d, excluded.cursor_at, excluded.digest);

-- name: hold
-- a h i j: rows that are not to be sent now, with the reason. Rows on their way, at Meta,
-- refused or in doubt stay as they are.
insert into capi.deliveries as d (
    dataset_id, feed, source_key, event_name, event_id, state, reason, event_time,
    cursor_at, run_no, match_keys, digest, value, currency, not_before
)
select
    %(dataset_id)s, %(feed)s, i.source_key, i.event_name, i.event_id, i.state, i.reason,
    i.event_time, i.cursor_at, %(run_no)s, i.match_keys, i.digest, i.value, i.currency,
    case when i.state = 'pending' then coalesce(
        i.not_before, case when i.reason = 'throttled' then capi.wait_of(%(worker_id)s) end,
        'epoch'
    ) end
from unnest(%(ordinals)s::integer[]) as held (ordinal)
join incoming as i using (ordinal)
order by i.source_key
on conflict (dataset_id, feed, source_key) do update set
    event_name = excluded.event_name,
    event_id = excluded.event_id,
    state = excluded.state,
    reason = excluded.reason,
    event_time = excluded.event_time,
    cursor_at = excluded.cursor_at,
    run_no = excluded.run_no,
    validation_id = null,
    match_keys = excluded.match_keys,
    digest = excluded.digest,
    value = excluded.value,
    currency = excluded.currency,
    not_before = excluded.not_before
where d.state in ('pending', 'quarantined', 'withheld', 'expired')
    and not capi.held_by_gate(d, %(validation_id)s)
    and (
        d.state, d.reason, d.cursor_at, d.event_time, d.not_before, d.event_id, d.digest
    ) is distinct from (
        excluded.state, excluded.reason, excluded.cursor_at, excluded.event_time,
        excluded.not_before, excluded.event_id, excluded.digest
    );

-- name: standing
-- How rows that this worker did not take stand now, by state and reason.
select d.state::text as state, d.reason, count(*) as rows
from unnest(%(ordinals)s::integer[]) as apart (ordinal)
join incoming as i using (ordinal)
cross join lateral (
    select known.state, known.reason from capi.deliveries as known
    where known.dataset_id = %(dataset_id)s
        and known.feed = %(feed)s
        and known.source_key = i.source_key
    limit 1
) as d
group by d.state, d.reason;

-- name: quarantine_by_gate
-- i: rows that failed the gate. Rows at Meta, on their way or in doubt stay as they are.
insert into capi.deliveries as d (
    dataset_id, feed, source_key, state, reason, cursor_at, run_no, validation_id, not_before
)
select
    %(dataset_id)s, %(feed)s, i.source_key, 'quarantined', i.reason, i.cursor_at,
    %(run_no)s, %(validation_id)s, null
from incoming as i
order by i.source_key
on conflict (dataset_id, feed, source_key) do update set
    state = 'quarantined',
    reason = excluded.reason,
    cursor_at = excluded.cursor_at,
    run_no = excluded.run_no,
    -- Overlapping runs have gates of their own; the later gate's word stands.
    validation_id = greatest(d.validation_id, excluded.validation_id),
    not_before = null
where d.state in ('pending', 'quarantined', 'withheld', 'expired');

-- name: next_batch_numbers
-- Numbers for batches about to be cut. A number is never given twice.
select nextval('capi.batch_numbers') from generate_series(1, %(count)s);

-- name: claim
-- b g: put rows on this worker's desk, each in its batch. Returns what it got; a row that
-- another claim took meanwhile is missing.
insert into capi.deliveries as d (
    dataset_id, feed, source_key, event_name, event_id, state, event_time, cursor_at,
    batch_id, run_no, match_keys, digest, value, currency, not_before
)
select
    %(dataset_id)s, %(feed)s, i.source_key, i.event_name, i.event_id, 'claimed',
    i.event_time, i.cursor_at, cut.batch_id, %(run_no)s, i.match_keys, i.digest, i.value,
    i.currency, null
from unnest(%(ordinals)s::integer[], %(batch_ids)s::bigint[]) as cut (ordinal, batch_id)
join incoming as i using (ordinal)
order by i.source_key
on conflict (dataset_id, feed, source_key) do update set
    event_name = excluded.event_name,
    event_id = excluded.event_id,
    state = 'claimed',
    reason = null,
    event_time = excluded.event_time,
    cursor_at = excluded.cursor_at,
    batch_id = excluded.batch_id,
    run_no = excluded.run_no,
    validation_id = null,
    match_keys = excluded.match_keys,
    digest = excluded.digest,
    value = excluded.value,
    currency = excluded.currency,
    not_before = null,
    resends = d.resends + (d.state = 'in_doubt')::integer,
    settled_at = null
where capi.may_claim(
    d, excluded.digest, %(validation_id)s, %(resend)s,
    make_interval(secs => %(resend_window)s), %(most_resends)s
)
returning d.source_key, d.doubt_since;

-- name: open_batches
-- b: the batches of a claim, after it: a row that another claim took is in none of them.
-- The worker's lock is the fence: its rescue waits for this step, or this step sees it.
-- Refused (no row) if the lease is over.
with worker as (
    select * from capi.workers
    where worker_id = %(worker_id)s and ended_at is null and lease_until > capi.clock()
    for share
)
insert into capi.batches (
    batch_id, root_id, worker_id, run_no, feed, dataset_id, events, bytes, send_before
)
select
    b.batch_id, b.batch_id, w.worker_id, w.run_no, w.feed, w.dataset_id, b.events, b.bytes,
    b.doubt_since + make_interval(secs => %(resend_window)s)
from worker as w
cross join unnest(
    %(batch_ids)s::bigint[], %(events)s::integer[], %(bytes)s::integer[],
    %(doubts)s::timestamptz[]
) as b (batch_id, events, bytes, doubt_since)
returning batch_id;

-- name: sits
-- The same fence where there is no batch: no row if the lease is over.
select worker_id from capi.workers
where worker_id = %(worker_id)s and ended_at is null and lease_until > capi.clock()
for share;

-- name: begin_sending
-- The intent before the effect: committed before the first byte leaves. No row comes back
-- unless the lease still covers the whole request twice over, and no window has closed.
with worker as (
    select worker_id from capi.workers
    where worker_id = %(worker_id)s
        and ended_at is null
        and lease_until > capi.clock() + make_interval(secs => %(cover_seconds)s)
    for share
), batch as (
    update capi.batches as b
    set state = 'sending', attempts = b.attempts + 1
    from worker as w
    where b.batch_id = %(batch_id)s
        and b.worker_id = w.worker_id
        and b.state = 'claimed'
        and coalesce(b.send_before > capi.clock(), true)
    returning b.batch_id, b.attempts
)
insert into capi.attempts (batch_id, seq)
select batch_id, attempts from batch
returning seq;

-- name: is_too_late
-- Whether a batch on this desk may not go out because the window for a repeat is over.
select batch_id from capi.batches
where batch_id = %(batch_id)s
    and worker_id = %(worker_id)s
    and state = 'claimed'
    and send_before <= capi.clock();

-- name: settle
-- c d e f i: the answer, the batch and its deliveries, in one step. A worker whose batch
-- was rescued settles nothing (settled = 0).
with batch as (
    update capi.batches as b
    set state = %(batch_state)s::capi.batch_state,
        reason = %(reason)s::text,
        settled_at = case
            when %(batch_state)s::text <> 'claimed' then capi.clock()
        end,
        -- Only an answer that proves nothing leaves a doubt, and only acceptance ends it.
        doubt_since = case
            when %(outcome)s::text = 'unknown' then coalesce(b.doubt_since, a.started_at)
            else b.doubt_since
        end,
        send_before = case
            when %(outcome)s::text = 'unknown' then least(
                b.send_before, a.started_at + make_interval(secs => %(resend_window)s)
            )
            else b.send_before
        end
    from capi.attempts as a
    where b.batch_id = %(batch_id)s
        and b.worker_id = %(worker_id)s
        and b.state = 'sending'
        and a.batch_id = b.batch_id
        and a.seq = %(seq)s
        and a.outcome = 'sending'
    returning b.batch_id, b.events, b.doubt_since, capi.clock() as now
), attempt as (
    update capi.attempts as a
    set outcome = %(outcome)s::capi.attempt_outcome,
        finished_at = capi.clock(),
        http_status = %(http_status)s::integer,
        code = %(code)s::integer,
        subcode = %(subcode)s::integer,
        fbtrace_id = %(fbtrace_id)s,
        events_received = %(events_received)s::integer,
        messages = %(messages)s::integer,
        wait_seconds = %(wait_seconds)s::integer,
        usage_percent = %(usage_percent)s::integer
    from batch
    where a.batch_id = batch.batch_id and a.seq = %(seq)s
), moved as (
    update capi.deliveries as d
    set state = case
            when %(delivery_state)s::text = 'pending'
                and coalesce(d.doubt_since, batch.doubt_since) is not null then 'in_doubt'
            else %(delivery_state)s::text::capi.delivery_state
        end,
        reason = case
            when %(delivery_state)s::text = 'pending'
                and coalesce(d.doubt_since, batch.doubt_since) is not null
                then 'answer.unclear'
            else %(reason)s::text
        end,
        doubt_since = case
            when %(delivery_state)s::text = 'accepted' then null
            else coalesce(d.doubt_since, batch.doubt_since)
        end,
        not_before = case
            when %(delivery_state)s::text in ('pending', 'in_doubt')
                then batch.now + make_interval(secs => %(pause_seconds)s)
        end,
        settled_at = batch.now
    from batch
    where d.batch_id = batch.batch_id and d.state = 'claimed'
        and %(delivery_state)s::text is not null
    returning d.state::text as state
)
select
    (select count(*) from batch) as settled,
    (select events from batch) as events,
    (select count(*) from moved) as moved,
    (select count(*) from moved where state = 'in_doubt') as in_doubt;

-- name: prove_acceptance
-- c: Meta's yes came after the batch was rescued. Evidence beats a lease: what still
-- waits in doubt from this batch is accepted; what has moved on is left alone.
with attempt as (
    update capi.attempts
    set outcome = 'accepted',
        finished_at = coalesce(finished_at, capi.clock()),
        http_status = %(http_status)s::integer,
        fbtrace_id = %(fbtrace_id)s,
        events_received = %(events_received)s::integer,
        messages = %(messages)s::integer
    where batch_id = %(batch_id)s and seq = %(seq)s and outcome in ('sending', 'unknown')
    returning batch_id
), batch as (
    update capi.batches as b
    set state = 'accepted', reason = null
    from attempt
    where b.batch_id = attempt.batch_id and b.state = 'in_doubt'
    returning b.batch_id
)
update capi.deliveries as d
set state = 'accepted', reason = null, doubt_since = null, not_before = null,
    settled_at = capi.clock()
from batch
where d.batch_id = batch.batch_id and d.state = 'in_doubt';

-- name: split_batch
-- A refused batch is cut in two; the halves stay on the same desk.
with parent as (
    update capi.batches
    set state = 'split', reason = %(reason)s, settled_at = capi.clock()
    where batch_id = %(batch_id)s and worker_id = %(worker_id)s and state = 'claimed'
    returning *
), children as (
    insert into capi.batches (
        batch_id, parent_id, root_id, depth, worker_id, run_no, feed, dataset_id, events,
        bytes, doubt_since, send_before
    )
    select
        c.batch_id, p.batch_id, p.root_id, p.depth + 1, p.worker_id, p.run_no, p.feed,
        p.dataset_id, c.events, c.bytes, p.doubt_since, p.send_before
    from parent as p
    cross join unnest(%(child_ids)s::bigint[], %(events)s::integer[], %(bytes)s::integer[])
        as c (batch_id, events, bytes)
    returning batch_id
), moved as (
    update capi.deliveries as d
    set batch_id = m.batch_id
    from parent as p
    cross join unnest(%(source_keys)s::text[], %(key_batches)s::bigint[])
        as m (source_key, batch_id)
    where d.dataset_id = p.dataset_id
        and d.feed = p.feed
        and d.source_key = m.source_key
        and d.batch_id = p.batch_id
        and d.state = 'claimed'
    returning 1
)
select (select count(*) from children) as children, (select count(*) from moved) as moved;

-- name: release
-- d f i: batches of this worker of which nothing is out now. What was out before, and is
-- in doubt, stays so.
with batch as (
    update capi.batches
    set state = %(batch_state)s::capi.batch_state, reason = %(reason)s, settled_at = capi.clock()
    where worker_id = %(worker_id)s
        and batch_id = any(%(batch_ids)s)
        and state = 'claimed'
    returning batch_id, doubt_since
), moved as (
    update capi.deliveries as d
    set state = case
            when coalesce(d.doubt_since, batch.doubt_since) is not null then 'in_doubt'
            else %(delivery_state)s::text
        end::capi.delivery_state,
        reason = case
            when coalesce(d.doubt_since, batch.doubt_since) is not null then 'answer.unclear'
            else %(reason)s::text
        end,
        doubt_since = coalesce(d.doubt_since, batch.doubt_since),
        not_before = case when %(delivery_state)s::text = 'pending'
            or coalesce(d.doubt_since, batch.doubt_since) is not null
            then case when %(reason)s = 'throttled' then capi.wait_of(%(worker_id)s)
                else 'epoch'
            end
        end,
        settled_at = capi.clock()
    from batch
    where d.batch_id = batch.batch_id and d.state = 'claimed'
    returning d.state::text as state
)
select
    count(*) filter (where state = 'pending') as pending,
    count(*) filter (where state = 'in_doubt') as in_doubt,
    count(*) filter (where state = 'quarantined') as quarantined
from moved;

-- name: leave
-- A worker gets up. From now on nothing it writes is taken.
update capi.workers
set ended_at = capi.clock(), ended_how = 'finished'
where worker_id = %(worker_id)s and ended_at is null
returning worker_id;

-- name: find_lost_workers
-- d f: workers whose lease is over: fenced first, so that none of them can begin a request
-- while their desks are cleared. One that sleeps in the middle of a step is not waited for:
-- its line is cut (set_bounds), and the next rescue finds it.
update capi.workers
set ended_at = capi.clock(), ended_how = 'lost'
where worker_id in (
    select worker_id from capi.workers
    where ended_at is null and lease_until < capi.clock()
    for no key update skip locked
)
returning worker_id;

-- name: clear_desks
-- d f: what workers that have ended had claimed goes back; what they may have sent is in
-- doubt.
with batch as (
    update capi.batches as b
    set state = case b.state when 'claimed' then 'released' else 'in_doubt' end::capi.batch_state,
        reason = case b.state when 'claimed' then 'worker.released' else 'worker.lost' end,
        settled_at = capi.clock(),
        doubt_since = case b.state
            when 'claimed' then b.doubt_since
            else coalesce(b.doubt_since, (
                select min(a.started_at) from capi.attempts as a
                where a.batch_id = b.batch_id and a.outcome = 'sending'
            ), b.created_at)
        end
    from capi.workers as w
    where w.worker_id = b.worker_id
        and w.ended_at is not null
        and b.state in ('claimed', 'sending')
        and (w.worker_id = any(%(worker_ids)s))
    returning b.batch_id, b.state, b.doubt_since, b.reason
), attempt as (
    update capi.attempts as a
    set outcome = 'unknown', finished_at = capi.clock()
    from batch
    where a.batch_id = batch.batch_id and a.outcome = 'sending'
), moved as (
    update capi.deliveries as d
    set state = case
            when coalesce(d.doubt_since, batch.doubt_since) is not null then 'in_doubt'
            else 'pending'
        end::capi.delivery_state,
        reason = case
            when coalesce(d.doubt_since, batch.doubt_since) is null then 'worker.released'
            when batch.reason = 'worker.lost' then 'worker.lost'
            else 'answer.unclear'
        end,
        doubt_since = coalesce(d.doubt_since, batch.doubt_since),
        not_before = 'epoch',
        settled_at = capi.clock()
    from batch
    where d.batch_id = batch.batch_id and d.state = 'claimed'
    returning d.state::text as state
)
select
    (select count(*) from batch) as batches,
    count(*) filter (where state = 'pending') as pending,
    count(*) filter (where state = 'in_doubt') as in_doubt
from moved;

-- name: expire
-- j: what waits longer than Meta's window.
update capi.deliveries
set state = 'expired', not_before = null, settled_at = capi.clock(),
    reason = case when reason = 'row.missing' then 'row.gone' else 'window.over' end
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and not_before is not null
    and state = 'pending'
    -- What the gate held has no event time here, and became known after the event.
    and coalesce(event_time, cursor_at) < %(oldest)s
returning 1;

-- name: close_doubt
-- Doubts that a resend can no longer settle keep their state and get the reason why.
update capi.deliveries
set reason = case when %(resend)s then 'doubt.window_over' else 'doubt.held' end
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and not_before is not null
    and state = 'in_doubt'
    and (not %(resend)s or doubt_since + make_interval(secs => %(resend_window)s) <= capi.clock())
    and reason not in (
        'doubt.window_over', 'doubt.held', 'doubt.row_changed', 'doubt.given_up'
    );

-- name: due_keys
-- Source keys of what is owed and may go out now: what is in doubt first, because its window
-- is the shorter one, then the oldest. What a person's limit held back is that person's to
-- send.
select source_key
from capi.deliveries
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and not_before <= capi.clock()
    and (
        (state = 'pending' and reason is distinct from 'limit')
        or (
            state = 'in_doubt' and %(resend)s
            and reason <> 'doubt.given_up'
            and resends < %(most_resends)s
            and doubt_since + make_interval(secs => %(resend_window)s) > capi.clock()
        )
    )
order by doubt_since nulls last, event_time nulls last, source_key
limit %(limit)s;

-- name: known_since
-- When the first of some rows became known, of those that were never looked for in vain.
select min(cursor_at) as since
from capi.deliveries
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and source_key = any(%(keys)s)
    and reason is distinct from 'row.missing';

-- name: sent_by_run
-- How many events a run has sent: those that Meta answered for, or may have.
select count(*) as events
from capi.batches as b
join capi.deliveries as d using (batch_id)
where b.run_no = %(run_no)s and d.state in ('accepted', 'refused', 'in_doubt');

-- name: miss
-- What was due and is not in the source is looked for again in an hour, until it expires.
update capi.deliveries
set reason = 'row.missing', not_before = capi.clock() + interval '1 hour'
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and source_key = any(%(keys)s)
    and state = 'pending'
returning 1;

-- name: replay
-- k: put back what a person chose, and what was chosen can still be found by its key; and
-- write down who did it, and why.
with moved as (
    update capi.deliveries as d
    set state = 'pending', reason = 'replayed', validation_id = null, not_before = 'epoch',
        doubt_since = null, run_no = %(run_no)s, settled_at = capi.clock(),
        digest = case when d.state = 'refused' then null else d.digest end
    where d.feed = %(feed)s
        and d.dataset_id = %(dataset_id)s
        and d.state = any(%(states)s::capi.delivery_state[])
        and capi.may_replay(d)
        and (%(reason)s::text is null or d.reason = %(reason)s)
        and (%(keys)s::text[] is null or d.source_key = any(%(keys)s))
        and (%(start)s::timestamptz is null or d.cursor_at >= %(start)s)
        and (%(end)s::timestamptz is null or d.cursor_at < %(end)s)
    returning d.source_key
), act as (
    insert into capi.acts (kind, who, feed, why, deliveries, detail)
    select
        'replay', %(who)s, %(feed)s, %(why)s, count(*),
        jsonb_build_object(
            'dataset_id', %(dataset_id)s::text, 'states', %(states)s::text[],
            'reason', %(reason)s::text, 'start', %(start)s::timestamptz,
            'end', %(end)s::timestamptz, 'keys', cardinality(%(keys)s::text[])
        )
    from moved
)
select source_key from moved;

-- name: count_replay
-- What a replay would put back.
select d.state::text as state, d.reason, count(*) as deliveries
from capi.deliveries as d
where d.feed = %(feed)s
    and d.dataset_id = %(dataset_id)s
    and d.state = any(%(states)s::capi.delivery_state[])
    and capi.may_replay(d)
    and (%(reason)s::text is null or d.reason = %(reason)s)
    and (%(keys)s::text[] is null or d.source_key = any(%(keys)s))
    and (%(start)s::timestamptz is null or d.cursor_at >= %(start)s)
    and (%(end)s::timestamptz is null or d.cursor_at < %(end)s)
group by d.state, d.reason
order by count(*) desc;

-- name: at_their_desks
-- Workers whose lease runs.
select count(*) as workers, max(lease_until) as until
from capi.workers
where ended_at is null and lease_until > capi.clock();

-- name: copy_quarantine
copy incoming (ordinal, source_key, cursor_at, reason, state, match_keys) from stdin;

-- name: copy_incoming
copy incoming (
    ordinal, source_key, event_name, event_id, event_seconds, cursor_at, state, reason,
    batch_id, match_keys, digest, value, currency, not_before_seconds
) from stdin;
