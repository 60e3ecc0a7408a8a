-- The ledger: what we promised, what we tried, what they said.
-- It holds the advertiser's own keys, states, reasons and counts. No column can hold a
-- customer's data, hashed or not, nor a sentence from a server or a database.
-- The letters are the edges of lifecycle.py.
-- Text is compared byte by byte, whatever the database's language: a language's order makes
-- the keys' indexes dearer by half, and an upgrade of the system's library changes it under
-- them, after which a unique index no longer finds what it holds (decision 0013).

create schema if not exists capi;

create table capi.migrations (
    version integer primary key,
    name text collate "C" not null,
    applied_at timestamptz not null default clock_timestamp()
);

-- One row: who this ledger is. `digest_key` keys the fingerprints of payloads, so that a
-- fingerprint tells nothing about a payload without it.
create table capi.installation (
    only_one boolean primary key default true check (only_one),
    digest_key bytea not null check (length(digest_key) = 32),
    created_at timestamptz not null default clock_timestamp(),
    ledger_id uuid not null default gen_random_uuid(),
    -- It only grows, and those who use the ledger remember it elsewhere: a ledger that is
    -- behind what they remember was put back from an older copy.
    marked_at timestamptz not null default clock_timestamp(),
    -- Until when it was away after it was put back, and the time of the copy: what became
    -- known before, and the ledger does not know, may have been sent in between.
    restored_at timestamptz,
    restored_from timestamptz,
    check (restored_from < restored_at),
    check ((restored_at is null) = (restored_from is null))
);

-- Leases run on the database's clock, so that workers need not agree on the time.
-- `capi.clock_offset` is for tests, which cannot wait a day.
create function capi.clock() returns timestamptz
language sql volatile parallel safe
return clock_timestamp()
    + coalesce(nullif(current_setting('capi.clock_offset', true), ''), '0')::interval;

create type capi.delivery_state as enum (
    'pending',      -- a, d, k: owed, and on nobody's desk
    'claimed',      -- b, g: on a worker's desk, in a batch
    'accepted',     -- c: Meta took it; no edge leads out
    'refused',      -- e: Meta refused this very event
    'quarantined',  -- i: held for a person, with a reason
    'withheld',     -- h: we decided not to send it
    'expired',      -- j: too old for Meta
    'in_doubt'      -- f, l: it may have gone out, and nobody knows
);

create type capi.batch_state as enum (
    'claimed',      -- b: on a desk; nothing of it is out now
    'sending',      -- a request may be on its way: committed before the first byte
    'accepted',     -- c
    'refused',      -- e: one event, refused
    'split',        -- refused, and cut in two
    'released',     -- d
    'in_doubt',     -- f
    'quarantined'   -- i: the requests allowed for splitting were used up
);

create type capi.attempt_outcome as enum (
    'sending',      -- no answer yet
    'accepted',     -- Meta counted exactly the events sent
    'refused',      -- a definite no to the data; nothing was processed
    'throttled',    -- a definite "later"; nothing was processed
    'stopped',      -- a definite no to token, permission or dataset
    'not_sent',     -- the body provably did not arrive
    'unknown'       -- anything else
);

create table capi.runs (
    run_no bigint generated always as identity primary key,
    run_id text collate "C" not null unique,
    feed text collate "C" not null,
    dataset_id text collate "C" not null,
    mode text collate "C" not null
        check (mode in ('send', 'test', 'dry_run', 'tend', 'replay')),
    interval_start timestamptz,
    interval_end timestamptz,
    state text collate "C" not null default 'planned'
        check (state in ('planned', 'validated', 'stopped', 'reported', 'gap')),
    plan jsonb not null default '{}',
    outcome jsonb not null default '{}',
    planned_at timestamptz not null default capi.clock(),
    reported_at timestamptz,
    check (interval_start is null or interval_start < interval_end)
);
create index runs_by_feed on capi.runs (feed, planned_at desc);

-- A worker is one process's stay at the desk. Its number is the fencing token: it is
-- never used again, and once `ended_at` is set, nothing it writes is taken any more.
create table capi.workers (
    worker_id bigint generated always as identity primary key,
    run_no bigint not null references capi.runs,
    feed text collate "C" not null,
    dataset_id text collate "C" not null,
    host text collate "C" not null,
    pid integer not null,
    started_at timestamptz not null default capi.clock(),
    lease_until timestamptz not null,
    ended_at timestamptz,
    ended_how text collate "C" check (ended_how in ('finished', 'lost')),
    check ((ended_at is null) = (ended_how is null))
);
-- The rescue looks for the few that are at their desks.
create index workers_at_their_desks on capi.workers (lease_until) where ended_at is null;

create sequence capi.batch_numbers;

-- A batch is a set of deliveries that go out in one request, and stay together until an
-- answer divides them.
create table capi.batches (
    batch_id bigint primary key,
    parent_id bigint references capi.batches,
    root_id bigint not null,
    depth smallint not null default 0 check (depth between 0 and 12),
    worker_id bigint not null references capi.workers,
    run_no bigint not null references capi.runs,
    feed text collate "C" not null,
    dataset_id text collate "C" not null,
    events integer not null check (events between 1 and 1000),
    bytes integer not null check (bytes > 0),
    state capi.batch_state not null default 'claimed',
    reason text collate "C",
    attempts smallint not null default 0,
    -- The start of the first request that may have arrived and was never disproved.
    doubt_since timestamptz,
    -- After it no request may begin: Meta would no longer know a repeat.
    send_before timestamptz,
    created_at timestamptz not null default capi.clock(),
    settled_at timestamptz,
    check ((state in ('claimed', 'sending')) = (settled_at is null)),
    check (state <> 'in_doubt' or doubt_since is not null),
    check ((parent_id is null) = (depth = 0))
);
-- The rescue and the end of a worker look for what is open.
create index batches_open on capi.batches (worker_id) where state in ('claimed', 'sending');
create index batches_by_run on capi.batches (run_no);
-- What is removed when its time is over is asked by these who still refers to it.
create index batches_by_worker on capi.batches (worker_id);
create index batches_by_root on capi.batches (root_id);
create index batches_by_parent on capi.batches (parent_id) where parent_id is not null;
create index workers_by_run on capi.workers (run_no);

-- One row a request, written before the first byte leaves. One terminal update.
create table capi.attempts (
    batch_id bigint not null references capi.batches,
    seq smallint not null check (seq > 0),
    outcome capi.attempt_outcome not null default 'sending',
    started_at timestamptz not null default capi.clock(),
    finished_at timestamptz,
    http_status integer,
    code integer,
    subcode integer,
    fbtrace_id text collate "C" check (length(fbtrace_id) <= 64),
    events_received integer,
    messages integer,
    wait_seconds integer,
    usage_percent integer,
    primary key (batch_id, seq),
    check ((outcome = 'sending') = (finished_at is null))
);
-- No batch can be out twice at a time.
create unique index attempts_one_in_flight on capi.attempts (batch_id) where outcome = 'sending';
create index attempts_by_time on capi.attempts (started_at);

create table capi.validations (
    validation_id bigint generated always as identity primary key,
    run_no bigint not null references capi.runs,
    feed text collate "C" not null,
    suite text collate "C" not null,
    rows bigint,
    quarantined bigint,
    passed boolean,
    seconds real,
    result jsonb,               -- counts and codes, from which Data Docs are built
    validated_at timestamptz not null default capi.clock()
);

create index validations_by_run on capi.validations (run_no);

create table capi.validation_results (
    validation_id bigint not null references capi.validations,
    position smallint not null,
    expectation text collate "C" not null,
    column_name text collate "C",
    reason text collate "C",  -- the catalogue's code; a warning may have none
    severity text collate "C" not null check (severity in ('critical', 'warning')),
    status text collate "C" not null
        check (status in ('passed', 'failed', 'could_not_be_checked')),
    failed_rows bigint,         -- none where it could not be checked
    share real,
    primary key (validation_id, position)
);

create table capi.deliveries (
    dataset_id text collate "C" not null,
    feed text collate "C" not null,
    source_key text collate "C" not null,
    event_name text collate "C",  -- unknown as long as a row is too broken to tell
    event_id text collate "C",
    state capi.delivery_state not null,
    reason text collate "C",
    event_time timestamptz,
    cursor_at timestamptz not null,
    batch_id bigint,
    run_no bigint not null,
    validation_id bigint,       -- the gate that put it in quarantine
    match_keys integer not null default 0,
    digest bytea,               -- keyed fingerprint of the event's bytes
    value numeric,
    currency text collate "C",
    -- From when on it may go out; null for what does not wait.
    not_before timestamptz default 'epoch',
    doubt_since timestamptz,    -- since when a request may have reached Meta
    resends smallint not null default 0,
    changed_after_send boolean not null default false,
    recorded_at timestamptz not null default capi.clock(),
    settled_at timestamptz,
    -- One promise a conversion: the advertiser knows it by its key.
    primary key (source_key, feed, dataset_id),
    -- One promise an event: Meta knows it by these three, and drops a second one.
    unique (event_id, event_name, dataset_id),
    -- Whoever is held is held for a reason.
    check (reason is not null or state in ('pending', 'claimed', 'accepted')),
    -- Nothing is on its way, at Meta or refused without a batch and a payload, save by a
    -- person's word.
    check (
        state not in ('claimed', 'accepted', 'refused')
        or reason is not distinct from 'person.received'
        or (
            batch_id is not null and digest is not null and event_name is not null
            and event_id is not null and event_time is not null
        )
    ),
    check (state <> 'in_doubt' or doubt_since is not null),
    -- Whatever waits is found by the index below.
    check (state not in ('pending', 'in_doubt') or not_before is not null)
) with (fillfactor = 45);
-- What waits: a small part of a big ledger, and tend_deliveries looks for it all day. On the
-- way from claimed to accepted not_before does not change, and the index has no work.
create index deliveries_waiting on capi.deliveries (feed, dataset_id, not_before)
where not_before is not null;
create index deliveries_by_batch on capi.deliveries (batch_id);
-- Not by feed first: where the planner has no statistics of a feed it believes that few
-- deliveries are of it, and would walk along all of them in place of looking up keys.
create index deliveries_by_cursor on capi.deliveries (cursor_at, feed);

create function capi.refuse_edge() returns trigger language plpgsql as $$
begin
    raise exception 'a delivery cannot move from % to %',
        coalesce(old.state::text, 'nothing'), new.state
        using errcode = 'integrity_constraint_violation';
end $$;

-- A new row is never at Meta or refused.
create trigger only_lettered_beginnings before insert on capi.deliveries
for each row when (
    new.state not in (
        'pending', 'claimed', 'quarantined', 'withheld', 'expired', 'in_doubt'
    )
) execute function capi.refuse_edge();

-- The edges of lifecycle.py; `accepted` stands on no left side. A test compares them. The
-- first is nearly everyone's.
create trigger only_lettered_edges before update on capi.deliveries
for each row when (
    old.state is distinct from new.state
    and (old.state, new.state) not in (
        ('claimed', 'accepted'),
        ('pending', 'claimed'), ('pending', 'withheld'), ('pending', 'quarantined'),
        ('pending', 'expired'),
        ('quarantined', 'claimed'), ('quarantined', 'withheld'), ('quarantined', 'expired'),
        ('quarantined', 'pending'),
        ('withheld', 'claimed'), ('withheld', 'quarantined'), ('withheld', 'expired'),
        ('withheld', 'pending'),
        ('expired', 'claimed'), ('expired', 'withheld'), ('expired', 'quarantined'),
        ('expired', 'pending'),
        ('refused', 'claimed'), ('refused', 'pending'),
        ('claimed', 'pending'), ('claimed', 'refused'),
        ('claimed', 'in_doubt'), ('claimed', 'quarantined'),
        ('in_doubt', 'claimed'), ('in_doubt', 'accepted'), ('in_doubt', 'pending'),
        ('pending', 'in_doubt'), ('quarantined', 'in_doubt'), ('withheld', 'in_doubt'),
        ('expired', 'in_doubt'), ('refused', 'in_doubt')
    )
) execute function capi.refuse_edge();

-- Whether a gate has put it in quarantine, and no later one has let it pass. Who asks
-- without a gate (null) leaves it to the next one, or to a person. One of several rows with
-- one key may look alone in a narrower interval: a person lets it go.
create function capi.held_by_gate(delivery capi.deliveries, validation bigint)
returns boolean language sql immutable as $$
    select delivery.state = 'quarantined'
        and delivery.validation_id is not null
        and (
            coalesce(delivery.validation_id >= validation, true)
            or delivery.reason = 'key.duplicate'
        )
$$;

-- Whether a person may put it back (k). Rows named by their content or by their occurrence
-- cannot be asked for by a key: they would be pending for ever.
create function capi.may_replay(delivery capi.deliveries)
returns boolean language sql immutable as $$
    select delivery.source_key !~ '^(nokey|long):[0-9a-f]{32}|#dup[0-9]+$'
        and delivery.state in ('quarantined', 'refused', 'withheld', 'expired')
$$;

-- Whether a row that was just read may be put on a worker's desk (b, g). Written once,
-- because the question is asked twice: before batches are cut, and under the row's lock.
create function capi.may_claim(
    delivery capi.deliveries,
    digest bytea,
    validation bigint,
    resend boolean,
    resend_window interval,
    most_resends integer
) returns boolean language sql volatile as $$
    select case delivery.state
        when 'pending' then delivery.not_before <= capi.clock()
        when 'quarantined' then not capi.held_by_gate(delivery, validation)
        when 'withheld' then true
        when 'expired' then true
        -- refused once is refused again, unless the row was changed; and a changed row
        -- does not go out where the one before it may be at Meta after all
        when 'refused' then delivery.doubt_since is null
            and delivery.digest is distinct from digest
        when 'in_doubt' then resend
            and delivery.reason <> 'doubt.given_up'
            and delivery.digest is not distinct from digest
            and delivery.resends < most_resends
            and delivery.not_before <= capi.clock()
            and delivery.doubt_since + resend_window > capi.clock()
        else false
    end
$$;

-- Whether a row that was read again, and stays as the ledger has it, says anything new: its
-- interval, or that it was changed since it went out. Asked twice, as `may_claim` is.
create function capi.has_news(
    delivery capi.deliveries, cursor_at timestamptz, digest bytea
) returns boolean language sql immutable as $$
    select delivery.cursor_at <> cursor_at
        or (delivery.state = 'accepted' and delivery.digest <> digest
            and not delivery.changed_after_send)
        or (delivery.state = 'in_doubt' and delivery.digest is distinct from digest
            and delivery.reason not in ('doubt.row_changed', 'doubt.given_up'))
$$;

-- Until when Meta asked this worker to wait.
create function capi.wait_of(worker bigint) returns timestamptz language sql stable as $$
    select coalesce(max(a.finished_at + make_interval(secs => a.wait_seconds)), 'epoch')
    from capi.batches as b
    join capi.attempts as a using (batch_id)
    where b.worker_id = worker and a.outcome = 'throttled'
$$;

-- Who has rows in hand holds this lock together with others; who erases holds it alone. So
-- no row slips between an erasure and a claim.
create function capi.hold_rows() returns void language sql as $$
    select pg_advisory_xact_lock_shared(hashtext('capi.erased'))
$$;

create function capi.hold_rows_alone() returns void language sql as $$
    select pg_advisory_xact_lock(hashtext('capi.erased'))
$$;

-- What a read row finds when it is compared with the ledger. It lives as long as the
-- transaction, as does the price of a random page: at the default, the planner walks along
-- the whole ledger's index to find ten thousand keys, for seconds. Never analysed: what is
-- not, the planner believes to be as large as its file.
create function capi.make_incoming() returns void language sql as $$
    select capi.hold_rows();
    select set_config('random_page_cost', '1.1', true);
    create temporary table if not exists incoming (
        ordinal integer not null,
        source_key text collate "C" not null,
        event_name text collate "C",
        event_id text collate "C",
        event_seconds bigint,
        event_time timestamptz generated always as (to_timestamp(event_seconds)) stored,
        cursor_at timestamptz not null,
        state capi.delivery_state not null,
        reason text collate "C",
        batch_id bigint,
        match_keys integer not null,
        digest bytea,
        value numeric,
        currency text collate "C",
        not_before_seconds bigint,
        not_before timestamptz
            generated always as (to_timestamp(not_before_seconds)) stored
    ) on commit delete rows
$$;
