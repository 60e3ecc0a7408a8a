-- People's hands on the ledger, and what it no longer holds.

-- What people did: written once. Neither a key nor anything else of a conversion stands
-- here.
create table capi.acts (
    act_no bigint generated always as identity primary key,
    done_at timestamptz not null default capi.clock(),
    kind text collate "C" not null
        check (kind in ('erase', 'replay', 'restored', 'settle')),
    who text collate "C" not null,  -- as the program knows it
    role text collate "C" not null default session_user,
    feed text collate "C",  -- none where it was the whole ledger
    why text collate "C" not null check (length(why) between 1 and 500),
    deliveries bigint not null,
    detail jsonb not null default '{}'
);

create function capi.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '%.% is written once: nothing in it is changed or removed',
        tg_table_schema, tg_table_name
        using errcode = 'integrity_constraint_violation';
end $$;

create trigger written_once before update or delete or truncate on capi.acts
for each statement execute function capi.refuse_change();

-- Conversions that were erased, and are not sent again, by a mark of their key.
create table capi.erased (
    mark bytea primary key check (length(mark) = 32),
    feed text collate "C" not null,
    erased_at timestamptz not null default capi.clock()
);

-- A keyed fingerprint: two rounds, as in HMAC, so that nobody without the key can test a
-- guess. Rows that share a key share its mark.
create function capi.mark_of(digest_key bytea, feed text, source_key text)
returns bytea language sql stable as $$
    select sha256(digest_key || sha256(digest_key || convert_to(
        feed || E'\n' || regexp_replace(source_key, '#dup[0-9]+$', ''), 'UTF8'
    )))
$$;

-- Counts of deliveries that the ledger no longer holds, so that its sums stay true. Of what
-- was erased there is no value: it could be one person's.
create table capi.removed (
    dataset_id text collate "C" not null,
    feed text collate "C" not null,
    day date not null,          -- the UTC day of cursor_at
    cause text collate "C" not null check (cause in ('retention', 'erasure')),
    state capi.delivery_state not null,
    currency text collate "C" not null default '',
    deliveries bigint not null,
    value numeric,
    primary key (dataset_id, feed, day, cause, state, currency)
);

-- Removes the deliveries of some keys, save those on a desk, and keeps their count.
create function capi.forget(of_feed text, keys text[])
returns table (state capi.delivery_state, deliveries bigint) language sql as $$
    with recursive named as (
        select
            ledger.dataset_id, one.source_key collate "C" as source_key,
            one.source_key as plain, 1 as occurrence
        from (select distinct r.dataset_id from capi.runs as r where r.feed = of_feed) as ledger
        cross join unnest(keys) as one (source_key)
        union all
        -- Rows that share a key are numbered without a gap.
        select n.dataset_id, d.source_key, n.plain, n.occurrence + 1
        from named as n
        join capi.deliveries as d
            on d.dataset_id = n.dataset_id
            and d.feed = of_feed
            and d.source_key = n.plain || '#dup' || (n.occurrence + 1)
    ), gone as (
        delete from capi.deliveries as d
        using named as n
        where d.dataset_id = n.dataset_id
            and d.feed = of_feed
            and d.source_key = n.source_key
            and d.state <> 'claimed'
        returning d.dataset_id, d.cursor_at, d.state
    ), counted as (
        insert into capi.removed as r (dataset_id, feed, day, cause, state, deliveries)
        select
            g.dataset_id, of_feed, (g.cursor_at at time zone 'UTC')::date, 'erasure',
            case g.state when 'pending' then 'withheld' else g.state end, count(*)
        from gone as g
        group by 1, 2, 3, 4, 5
        on conflict (dataset_id, feed, day, cause, state, currency)
        do update set deliveries = r.deliveries + excluded.deliveries
    )
    select g.state, count(*) from gone as g group by g.state
$$;
