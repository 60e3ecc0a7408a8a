-- What people do to the ledger by hand, and what is removed when its time is over. Only
-- `forget` stands in ledger.sql, because a worker that meets an erased row needs it, too.

-- name: retain_count
-- What retention would remove, by state.
select state::text as state, count(*) as deliveries
from capi.deliveries
where feed = %(feed)s
    and cursor_at < %(until)s
    and coalesce(event_time, cursor_at) < %(until)s
    and state in ('accepted', 'refused', 'quarantined', 'withheld', 'expired')
group by state
order by state;

-- name: retain_until
-- The first moment of the UTC day from which on everything is kept. Of two clocks that
-- differ the earlier is believed: what is removed too early could be sent again.
select date_trunc(
    'day', least(capi.clock(), %(now)s) - make_interval(secs => %(kept)s), 'UTC'
) as until;

-- name: retain_deliveries
-- One step: what is finished and old goes, and is counted.
with old as (
    select dataset_id, feed, source_key
    from capi.deliveries
    where feed = %(feed)s
        and cursor_at < %(until)s
        and coalesce(event_time, cursor_at) < %(until)s
        and state in ('accepted', 'refused', 'quarantined', 'withheld', 'expired')
    order by cursor_at
    limit %(most)s
    for update skip locked
), gone as (
    delete from capi.deliveries as d
    using old
    where d.dataset_id = old.dataset_id
        and d.feed = old.feed
        and d.source_key = old.source_key
    returning d.dataset_id, d.feed, d.cursor_at, d.state, d.currency, d.value
), counted as (
    insert into capi.removed as r (
        dataset_id, feed, day, cause, state, currency, deliveries, value
    )
    select
        dataset_id, feed, (cursor_at at time zone 'UTC')::date, 'retention', state,
        coalesce(currency, ''), count(*), sum(value)
    from gone
    group by 1, 2, 3, 4, 5, 6
    on conflict (dataset_id, feed, day, cause, state, currency) do update set
        deliveries = r.deliveries + excluded.deliveries,
        value = coalesce(r.value + excluded.value, r.value, excluded.value)
)
select count(*) as removed from gone;

-- name: retain_batches
-- One step: batches of which no delivery is left, with those they were cut into.
with old as (
    select b.root_id
    from capi.batches as b
    where b.feed = %(feed)s and b.parent_id is null and b.created_at < %(until)s
        and not exists (
            select from capi.batches as part
            where part.root_id = b.root_id
                and (
                    part.state in ('claimed', 'sending')
                    or exists (
                        select from capi.deliveries as d where d.batch_id = part.batch_id
                    )
                )
        )
    limit %(most)s
), batch as (
    delete from capi.batches as b using old where b.root_id = old.root_id
    returning b.batch_id
), attempt as (
    delete from capi.attempts as a using batch where a.batch_id = batch.batch_id
)
select count(*) as removed from batch;

-- name: retain_workers
-- One step: workers of which no batch is left.
delete from capi.workers
where worker_id in (
    select w.worker_id
    from capi.workers as w
    where w.feed = %(feed)s and w.started_at < %(until)s and w.ended_at is not null
        and not exists (select from capi.batches as b where b.worker_id = w.worker_id)
    limit %(most)s
)
returning 1;

-- name: retain_validations
-- One step: gates, with their expectations' outcomes.
with old as (
    select validation_id from capi.validations
    where feed = %(feed)s and validated_at < %(until)s
    limit %(most)s
), result as (
    delete from capi.validation_results as r
    using old where r.validation_id = old.validation_id
)
delete from capi.validations as v using old where v.validation_id = old.validation_id
returning 1;

-- name: retain_scores
-- One step: Meta's scores of the feed's datasets.
delete from capi.scores
where (dataset_id, surface, event_name, day) in (
    select s.dataset_id, s.surface, s.event_name, s.day
    from capi.scores as s
    where s.dataset_id in (select r.dataset_id from capi.runs as r where r.feed = %(feed)s)
        and s.day < (%(until)s at time zone 'UTC')::date
    limit %(most)s
)
returning 1;

-- name: retain_steps
-- One step: whoever asks for one of its own does so within seconds.
delete from capi.steps
where step in (
    select s.step from capi.steps as s
    where s.made_at < capi.clock() - interval '1 day'
    limit %(most)s
)
returning 1;

-- name: retain_runs
-- One step: runs of which nothing is left; a feed's last run of a dataset says that there
-- is one.
delete from capi.runs
where run_no in (
    select r.run_no
    from capi.runs as r
    where r.feed = %(feed)s and r.planned_at < %(until)s
        and not exists (select from capi.workers as w where w.run_no = r.run_no)
        and not exists (select from capi.batches as b where b.run_no = r.run_no)
        and not exists (select from capi.validations as v where v.run_no = r.run_no)
        and exists (
            select from capi.runs as later
            where later.feed = r.feed and later.dataset_id = r.dataset_id
                and later.run_no > r.run_no
        )
    limit %(most)s
)
returning 1;

-- name: hold_rows_alone
-- Wait for those who have rows in hand, and let no other take any.
select capi.hold_rows_alone();

-- name: mark_erased
-- From now on no row with one of these keys is sent, or recorded. Returns the new ones.
insert into capi.erased (mark, feed)
select distinct capi.mark_of(house.digest_key, %(feed)s, one.source_key), %(feed)s
from capi.installation as house
cross join unnest(%(keys)s::text[]) as one (source_key)
on conflict (mark) do nothing
returning 1;

-- name: count_standing
-- How many deliveries with these keys there are, by dataset and state.
select d.dataset_id, d.state::text as state, count(*) as deliveries
from (select distinct dataset_id from capi.runs where feed = %(feed)s) as ledger
join capi.deliveries as d
    on d.dataset_id = ledger.dataset_id
    and d.feed = %(feed)s
    and d.source_key = any(%(keys)s)
group by d.dataset_id, d.state
order by d.dataset_id, d.state;

-- name: settle_doubt
-- c k: a person's word on what is in doubt.
update capi.deliveries
set state = %(state)s::capi.delivery_state,
    reason = %(reason)s,
    doubt_since = case when %(state)s = 'in_doubt' then doubt_since end,
    not_before = case %(state)s
        when 'in_doubt' then not_before
        when 'pending' then 'epoch'::timestamptz
    end,
    settled_at = capi.clock()
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and source_key = any(%(keys)s)
    and state = 'in_doubt'
returning 1;

-- name: clock
-- The ledger's time.
select capi.clock();

-- name: write_act
-- What a person did, for ever.
insert into capi.acts (kind, who, feed, why, deliveries, detail)
values (%(kind)s, %(who)s, %(feed)s, %(why)s, %(deliveries)s, %(detail)s);

-- name: mark
-- The ledger's mark, and the next one.
update capi.installation
set marked_at = greatest(capi.clock(), marked_at + interval '1 microsecond')
returning ledger_id::text as ledger_id, marked_at;

-- name: read_mark
-- The ledger's mark.
select ledger_id::text as ledger_id, marked_at from capi.installation;

-- name: fence_all
-- f: the ledger was put back from an older copy: whoever was at a desk has left it, and
-- what was on it may have been sent.
with worker as (
    update capi.workers
    set ended_at = capi.clock(), ended_how = 'lost'
    where ended_at is null
), batch as (
    update capi.batches
    set state = 'in_doubt', reason = 'ledger.restored', settled_at = capi.clock(),
        doubt_since = least(doubt_since, %(since)s)
    where state in ('claimed', 'sending')
), attempt as (
    update capi.attempts
    set outcome = 'unknown', finished_at = capi.clock()
    where outcome = 'sending'
)
update capi.deliveries
set state = 'in_doubt', reason = 'ledger.restored', not_before = 'epoch',
    doubt_since = least(doubt_since, %(since)s), settled_at = capi.clock()
where state = 'claimed'
returning 1;

-- name: suspect_waiting
-- l: what waited may have been sent since the copy was made.
update capi.deliveries
set state = 'in_doubt', reason = 'ledger.restored', doubt_since = %(since)s,
    not_before = 'epoch', settled_at = capi.clock()
where not_before <= capi.clock() and state = 'pending'
returning 1;

-- name: note_restored
-- What became known before now, and is new here, is suspect. The numbers given out since
-- the copy was made are not given out again.
update capi.installation
set restored_from = least(restored_from, %(since)s),
    restored_at = capi.clock(),
    marked_at = greatest(capi.clock(), marked_at + interval '1 microsecond')
where (
    select count(
        nextval(pg_get_serial_sequence('capi.workers', 'worker_id'))
        + nextval('capi.batch_numbers')
    )
    from generate_series(1, %(leap)s)
) > 0;
