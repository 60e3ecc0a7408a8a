-- What the page reads of a ledger with ten million deliveries in a second: counts by day.
-- They are exact whenever they are asked for: a day that a transaction touched is marked in
-- that same transaction, and as long as its mark stands, it is counted anew.

create table capi.day_counts (
    dataset_id text collate "C" not null,
    feed text collate "C" not null,
    day date not null,          -- the UTC day of cursor_at
    state capi.delivery_state not null,
    reason text collate "C",
    currency text collate "C",
    match_keys integer not null,    -- of accepted deliveries; 0 of all others
    deliveries bigint not null,
    value numeric,
    -- Of the accepted ones, how many have both times, and were at Meta how soon.
    timed bigint not null,
    within_1_hour bigint not null,
    within_2_hours bigint not null,
    within_24_hours bigint not null,
    counted_at timestamptz not null
);
create index day_counts_by_day on capi.day_counts (feed, dataset_id, day);
comment on table capi.day_counts is
    'Deliveries by day, counted when they were last looked at; capi.day_figures() is exact.';

-- When what is not at Meta happened, so that it is known what soon is too old for it.
create table capi.day_waiting (
    dataset_id text collate "C" not null,
    feed text collate "C" not null,
    day date not null,
    state capi.delivery_state not null,
    hour timestamptz not null,
    deliveries bigint not null
);
create index day_waiting_by_hour on capi.day_waiting (feed, hour);
create index day_waiting_by_day on capi.day_waiting (feed, dataset_id, day);
comment on table capi.day_waiting is
    'Deliveries that Meta may still get, by the hour of their event; as in capi.day_counts.';

-- No key: workers that touch one day at a time do not wait for each other.
create table capi.touched_days (
    dataset_id text collate "C" not null,
    feed text collate "C" not null,
    day date not null
);
comment on table capi.touched_days is
    'Days whose deliveries changed since they were counted, as often as they changed.';

create function capi.mark_days() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into capi.touched_days (dataset_id, feed, day)
        select distinct n.dataset_id, n.feed, (n.cursor_at at time zone 'UTC')::date
        from new_rows as n;
    elsif tg_op = 'DELETE' then
        insert into capi.touched_days (dataset_id, feed, day)
        select distinct o.dataset_id, o.feed, (o.cursor_at at time zone 'UTC')::date
        from old_rows as o;
    else
        insert into capi.touched_days (dataset_id, feed, day)
        select n.dataset_id, n.feed, (n.cursor_at at time zone 'UTC')::date
        from new_rows as n
        union
        select o.dataset_id, o.feed, (o.cursor_at at time zone 'UTC')::date
        from old_rows as o;
    end if;
    return null;
end $$;

create trigger mark_days_of_new after insert on capi.deliveries
referencing new table as new_rows
for each statement execute function capi.mark_days();

create trigger mark_days_of_changed after update on capi.deliveries
referencing old table as old_rows new table as new_rows
for each statement execute function capi.mark_days();

create trigger mark_days_of_removed after delete on capi.deliveries
referencing old table as old_rows
for each statement execute function capi.mark_days();

create function capi.count_day(of_dataset text, of_feed text, of_day date)
returns setof capi.day_counts language sql stable rows 200 as $$
    select
        of_dataset, of_feed, of_day, d.state, d.reason, d.currency,
        case d.state when 'accepted' then d.match_keys else 0 end as match_keys,
        count(*), sum(d.value),
        count(*) filter (where d.state = 'accepted' and d.settled_at >= d.event_time),
        count(*) filter (
            where d.state = 'accepted' and d.settled_at <= d.event_time + interval '1 hour'
        ),
        count(*) filter (
            where d.state = 'accepted' and d.settled_at <= d.event_time + interval '2 hours'
        ),
        count(*) filter (
            where d.state = 'accepted' and d.settled_at <= d.event_time + interval '24 hours'
        ),
        capi.clock()
    from capi.deliveries as d
    where d.feed = of_feed
        and d.dataset_id = of_dataset
        and d.cursor_at >= of_day::timestamp at time zone 'UTC'
        and d.cursor_at < (of_day + 1)::timestamp at time zone 'UTC'
    group by d.state, d.reason, d.currency, case d.state when 'accepted' then d.match_keys else 0 end
$$;

create function capi.count_waiting(of_dataset text, of_feed text, of_day date)
returns setof capi.day_waiting language sql stable rows 50 as $$
    select
        of_dataset, of_feed, of_day, d.state,
        -- What the gate held has no event time here, and became known after the event.
        date_trunc('hour', coalesce(d.event_time, d.cursor_at), 'UTC'),
        count(*)
    from capi.deliveries as d
    where d.feed = of_feed
        and d.dataset_id = of_dataset
        and d.cursor_at >= of_day::timestamp at time zone 'UTC'
        and d.cursor_at < (of_day + 1)::timestamp at time zone 'UTC'
        and d.state in ('pending', 'claimed', 'quarantined')
    group by d.state, date_trunc('hour', coalesce(d.event_time, d.cursor_at), 'UTC')
$$;

-- Counts the days that were touched, by one statement and so in one snapshot: a mark that
-- it does not see stands for a change that it does not see, and stays. Two at a time would
-- count a day twice, so the second leaves it to the first.
create function capi.count_touched_days() returns bigint language plpgsql as $$
declare
    days bigint;
begin
    if not pg_try_advisory_xact_lock(hashtext('capi.touched_days')) then
        return 0;
    end if;
    with seen as (
        delete from capi.touched_days returning dataset_id, feed, day
    ), touched as materialized (
        select distinct dataset_id, feed, day from seen
    ), gone as (
        delete from capi.day_counts as c
        using touched as t
        where c.feed = t.feed and c.dataset_id = t.dataset_id and c.day = t.day
    ), waited as (
        delete from capi.day_waiting as w
        using touched as t
        where w.feed = t.feed and w.dataset_id = t.dataset_id and w.day = t.day
    ), waiting as (
        insert into capi.day_waiting
        select now.*
        from touched as t
        cross join lateral capi.count_waiting(t.dataset_id, t.feed, t.day) as now
    ), counted as (
        insert into capi.day_counts
        select now.*
        from touched as t
        cross join lateral capi.count_day(t.dataset_id, t.feed, t.day) as now
    )
    select count(*) into days from touched;
    return days;
end $$;

-- Deliveries that the ledger holds by feed, day, state, reason, currency and match keys:
-- as they were counted, and those of touched days counted now.
create function capi.day_figures() returns setof capi.day_counts language sql stable as $$
    with touched as materialized (
        select distinct dataset_id, feed, day from capi.touched_days
    )
    select c.*
    from capi.day_counts as c
    where not exists (
        select from touched as t
        where t.feed = c.feed and t.dataset_id = c.dataset_id and t.day = c.day
    )
    union all
    select now.*
    from touched as t
    cross join lateral capi.count_day(t.dataset_id, t.feed, t.day) as now
$$;

-- What a ledger of an earlier program holds was never counted.
insert into capi.touched_days (dataset_id, feed, day)
select distinct dataset_id, feed, (cursor_at at time zone 'UTC')::date from capi.deliveries;

select capi.count_touched_days();
