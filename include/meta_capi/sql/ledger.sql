-- Every question the ledger is asked while conversions are delivered. The letters are the
-- edges of lifecycle.py. Reports and pages have their own file, insight.sql.

-- name: installation
-- The ledger's fingerprint key.
select digest_key from capi.installation;

-- name: set_bounds
-- A worker that is stopped in the middle of a step loses its locks, and those who wait for
-- them wait only so long.
select
    set_config('idle_in_transaction_session_timeout', '60s', false),
    set_config('lock_timeout', '20s', false);

-- name: own_transaction
-- Its number, to ask for its outcome if the answer to COMMIT is lost; none if nothing was
-- written.
select pg_current_xact_id_if_assigned()::text as number;

-- name: outcome_of
-- A number that PostgreSQL has not yet given is from before a failover that lost it.
select case
    when %(number)s::xid8 < pg_snapshot_xmax(pg_current_snapshot())
    then pg_xact_status(%(number)s::xid8)
    else 'aborted'
end as outcome;

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

-- name: arrive
-- A worker sits down: its number fences whatever it writes.
insert into capi.workers (run_no, feed, dataset_id, host, pid, lease_until)
values (
    %(run_no)s, %(feed)s, %(dataset_id)s, %(host)s, %(pid)s,
    capi.clock() + make_interval(secs => %(lease_seconds)s)
)
returning worker_id, capi.clock() as now;

-- name: renew
-- The lease goes on, unless it is already over: an ended lease never comes back.
update capi.workers
set lease_until = capi.clock() + make_interval(secs => %(lease_seconds)s)
where worker_id = %(worker_id)s and ended_at is null and lease_until > capi.clock()
returning lease_until;

-- name: make_incoming
-- The transaction's own table for the rows just read.
select capi.make_incoming();

-- name: describe_incoming
-- Without statistics the planner joins the new rows row by row with the whole ledger.
analyze incoming;

-- name: compare
-- Which of the rows just read must stay as the ledger has them, and how they stand.
select
    i.ordinal,
    d.state::text as state,
    case
        when d.state = 'in_doubt' and d.digest is distinct from i.digest
        then 'doubt.row_changed'
        else d.reason
    end as reason
from incoming as i
join capi.deliveries as d
    on d.dataset_id = %(dataset_id)s
    and d.feed = %(feed)s
    and d.source_key = i.source_key
where case
    when i.state = 'pending' and i.reason is null then not capi.may_claim(
        d, i.digest, %(validation_id)s, %(resend)s,
        make_interval(secs => %(resend_window)s), %(most_resends)s
    )
    else d.state not in ('pending', 'quarantined', 'withheld', 'expired')
        or (d.state = 'quarantined' and d.validation_id >= %(validation_id)s)
end;

-- name: find_taken
-- Rows whose event_id already belongs to another conversion of this dataset.
select i.ordinal
from incoming as i
join capi.deliveries as d
    on d.dataset_id = %(dataset_id)s
    and d.event_name = i.event_name
    and d.event_id = i.event_id
where (d.feed, d.source_key) <> (%(feed)s, i.source_key);

-- name: free_taken
-- i: those rows are held, and leave the event_id to its owner.
update incoming as i
set state = 'quarantined', reason = 'event_id.taken', event_id = null, digest = null
from unnest(%(ordinals)s::integer[]) as freed (ordinal)
where i.ordinal = freed.ordinal;

-- name: touch
-- Rows read again that stay as they are: the interval they stand in, and whether they
-- were changed since they went out.
update capi.deliveries as d
set cursor_at = i.cursor_at,
    changed_after_send = d.changed_after_send
        or (d.state = 'accepted' and i.digest is not null and d.digest <> i.digest),
    reason = case
        when d.state = 'in_doubt' and d.digest is distinct from i.digest
        then 'doubt.row_changed'
        else d.reason
    end
from unnest(%(ordinals)s::integer[]) as kept (ordinal)
join incoming as i using (ordinal)
where d.dataset_id = %(dataset_id)s
    and d.feed = %(feed)s
    and d.source_key = i.source_key
    and (
        d.cursor_at <> i.cursor_at
        or (d.state = 'accepted' and i.digest is not null and d.digest <> i.digest
            and not d.changed_after_send)
        or (d.state = 'in_doubt' and d.digest is distinct from i.digest
            and d.reason <> 'doubt.row_changed')
    );

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
    i.not_before
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
    and (d.state, d.reason, d.cursor_at, d.event_time, d.not_before) is distinct from (
        excluded.state, excluded.reason, excluded.cursor_at, excluded.event_time,
        excluded.not_before
    );

-- name: quarantine_by_gate
-- i: rows that failed the gate. Rows at Meta, on their way or in doubt stay as they are.
insert into capi.deliveries as d (
    dataset_id, feed, source_key, state, reason, cursor_at, run_no, validation_id
)
select
    %(dataset_id)s, %(feed)s, i.source_key, 'quarantined', i.reason, i.cursor_at,
    %(run_no)s, %(validation_id)s
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

-- name: open_batches
-- b: batches cut from the rows just read. Refused (no row) if the lease is over.
insert into capi.batches (
    batch_id, root_id, worker_id, run_no, feed, dataset_id, events, bytes
)
select b.batch_id, b.batch_id, w.worker_id, w.run_no, w.feed, w.dataset_id, b.events, b.bytes
from unnest(%(batch_ids)s::bigint[], %(events)s::integer[], %(bytes)s::integer[])
    as b (batch_id, events, bytes)
join capi.workers as w
    on w.worker_id = %(worker_id)s
    and w.ended_at is null
    and w.lease_until > capi.clock()
returning batch_id;

-- name: claim
-- b g: put rows on this worker's desk, each in its batch. Returns what it got; a row that
-- another worker took meanwhile is missing.
insert into capi.deliveries as d (
    dataset_id, feed, source_key, event_name, event_id, state, event_time, cursor_at,
    batch_id, run_no, match_keys, digest, value, currency
)
select
    %(dataset_id)s, %(feed)s, i.source_key, i.event_name, i.event_id, 'claimed',
    i.event_time, i.cursor_at, cut.batch_id, %(run_no)s, i.match_keys, i.digest, i.value,
    i.currency
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
returning d.batch_id, d.source_key;

-- name: shrink_batch
-- A batch that lost rows to another worker at its claim.
update capi.batches
set events = %(events)s, bytes = %(bytes)s
where batch_id = %(batch_id)s;

-- name: drop_batch
-- A batch that lost every row at its claim never was.
delete from capi.batches where batch_id = %(batch_id)s;

-- name: begin_sending
-- The intent before the effect: committed before the first byte leaves. No row comes back
-- unless the lease still covers the whole request twice over.
with batch as (
    update capi.batches as b
    set state = 'sending', attempts = b.attempts + 1
    from capi.workers as w
    where b.batch_id = %(batch_id)s
        and b.worker_id = %(worker_id)s
        and b.state in ('claimed', 'sending')
        and not exists (
            select from capi.attempts as a
            where a.batch_id = b.batch_id and a.outcome = 'sending'
        )
        and w.worker_id = b.worker_id
        and w.ended_at is null
        and w.lease_until > capi.clock() + make_interval(secs => %(cover_seconds)s)
    returning b.batch_id, b.attempts
)
insert into capi.attempts (batch_id, seq)
select batch_id, attempts from batch
returning seq;

-- name: is_sending
-- After a broken connection: was the intent written after all?
select a.seq from capi.attempts as a
join capi.batches as b using (batch_id)
where a.batch_id = %(batch_id)s and a.outcome = 'sending'
    and b.worker_id = %(worker_id)s and b.state = 'sending';

-- name: settle
-- c d e f i: the answer, the batch and its deliveries, in one step. A worker whose batch
-- was rescued settles nothing (settled = 0).
with attempt as (
    update capi.attempts
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
    where batch_id = %(batch_id)s and seq = %(seq)s and outcome = 'sending'
    returning batch_id, started_at, outcome
), batch as (
    update capi.batches as b
    set state = %(batch_state)s::capi.batch_state,
        reason = %(reason)s::text,
        settled_at = case
            when %(batch_state)s::text not in ('claimed', 'sending') then capi.clock()
        end,
        -- Only an answer that proves nothing leaves a doubt, and only acceptance ends it.
        doubt_since = case
            when attempt.outcome = 'unknown' then coalesce(b.doubt_since, attempt.started_at)
            else b.doubt_since
        end
    from attempt
    where b.batch_id = attempt.batch_id
        and b.worker_id = %(worker_id)s
        and b.state = 'sending'
    returning b.batch_id, b.events, b.doubt_since
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
                then capi.clock() + make_interval(secs => %(pause_seconds)s)
        end,
        settled_at = capi.clock()
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

-- name: is_settled
-- After a broken connection: was the answer written after all?
select outcome::text = %(outcome)s::text as same
from capi.attempts
where batch_id = %(batch_id)s and seq = %(seq)s;

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
    where batch_id = %(batch_id)s and worker_id = %(worker_id)s
        and state in ('claimed', 'sending')
    returning *
), children as (
    insert into capi.batches (
        batch_id, parent_id, root_id, depth, worker_id, run_no, feed, dataset_id, events,
        bytes, doubt_since
    )
    select
        c.batch_id, p.batch_id, p.root_id, p.depth + 1, p.worker_id, p.run_no, p.feed,
        p.dataset_id, c.events, c.bytes, p.doubt_since
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
-- d i: batches of this worker that provably have nothing out, back to where they were.
with batch as (
    update capi.batches
    set state = %(batch_state)s::capi.batch_state, reason = %(reason)s, settled_at = capi.clock()
    where worker_id = %(worker_id)s
        and (batch_id = any(%(batch_ids)s) or %(batch_ids)s::bigint[] is null)
        and state = 'claimed'
    returning batch_id, doubt_since
), moved as (
    update capi.deliveries as d
    set state = case
            when %(delivery_state)s::text = 'quarantined' then 'quarantined'
            when coalesce(d.doubt_since, batch.doubt_since) is not null then 'in_doubt'
            else 'pending'
        end::capi.delivery_state,
        reason = case
            when %(delivery_state)s::text = 'pending'
                and coalesce(d.doubt_since, batch.doubt_since) is not null
                then 'answer.unclear'
            else %(reason)s::text
        end,
        doubt_since = coalesce(d.doubt_since, batch.doubt_since),
        not_before = capi.clock() + make_interval(secs => %(pause_seconds)s),
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
-- while their desks are cleared.
update capi.workers
set ended_at = capi.clock(), ended_how = 'lost'
where ended_at is null and lease_until < capi.clock()
returning worker_id;

-- name: clear_desks
-- d f: what lost workers had claimed goes back; what they may have sent is in doubt.
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
            else 'worker.lost'
        end,
        doubt_since = coalesce(d.doubt_since, batch.doubt_since),
        not_before = null,
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
set state = 'expired', reason = 'window.over', settled_at = capi.clock()
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and state = 'pending'
    and event_time < %(oldest)s
returning 1;

-- name: close_doubt
-- Doubts that a resend can no longer settle keep their state and get the reason why.
update capi.deliveries
set reason = case when %(resend)s then 'doubt.window_over' else 'doubt.held' end
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and state = 'in_doubt'
    and (not %(resend)s or doubt_since + make_interval(secs => %(resend_window)s) <= capi.clock())
    and reason not in ('doubt.window_over', 'doubt.held');

-- name: due_keys
-- Source keys of what is owed and may go out now, oldest first.
select source_key
from capi.deliveries
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and (
        (state = 'pending' and coalesce(not_before <= capi.clock(), true))
        or (
            state = 'in_doubt' and %(resend)s
            and resends < %(most_resends)s
            and coalesce(not_before <= capi.clock(), true)
            and doubt_since + make_interval(secs => %(resend_window)s) > capi.clock()
        )
    )
order by event_time nulls last, source_key
limit %(limit)s;

-- name: replay
-- k: put back what a person chose.
update capi.deliveries as d
set state = 'pending', reason = 'replayed', validation_id = null, not_before = null,
    run_no = %(run_no)s, settled_at = capi.clock(),
    digest = case when d.state = 'refused' then null else d.digest end
where d.feed = %(feed)s
    and d.dataset_id = %(dataset_id)s
    and d.state = any(%(states)s::capi.delivery_state[])
    and d.state in ('quarantined', 'refused', 'withheld', 'expired')
    and (%(reason)s::text is null or d.reason = %(reason)s)
    and (%(keys)s::text[] is null or d.source_key = any(%(keys)s))
    and (%(start)s::timestamptz is null or d.cursor_at >= %(start)s)
    and (%(end)s::timestamptz is null or d.cursor_at < %(end)s)
returning d.source_key;

-- name: count_replay
-- What a replay would put back.
select d.state::text as state, d.reason, count(*) as deliveries
from capi.deliveries as d
where d.feed = %(feed)s
    and d.dataset_id = %(dataset_id)s
    and d.state = any(%(states)s::capi.delivery_state[])
    and d.state in ('quarantined', 'refused', 'withheld', 'expired')
    and (%(reason)s::text is null or d.reason = %(reason)s)
    and (%(keys)s::text[] is null or d.source_key = any(%(keys)s))
    and (%(start)s::timestamptz is null or d.cursor_at >= %(start)s)
    and (%(end)s::timestamptz is null or d.cursor_at < %(end)s)
group by d.state, d.reason
order by count(*) desc;

-- name: copy_quarantine
copy incoming (ordinal, source_key, cursor_at, reason, state, match_keys) from stdin;

-- name: copy_incoming
copy incoming (
    ordinal, source_key, event_name, event_id, event_time, cursor_at, state, reason,
    match_keys, digest, value, currency, not_before
) from stdin;
