-- What people are told of, once, until it is over. A sentence is ours: names, counts and
-- codes of the catalogue, nothing of a row.

create table capi.alerts (
    alert_id bigint generated always as identity primary key,
    feed text collate "C" not null,
    kind text collate "C" not null,
    sentence text collate "C" not null,
    figure double precision not null,   -- how bad; twice the figure is told at once
    raised_at timestamptz not null default capi.clock(),
    last_seen timestamptz not null default capi.clock(),
    fine_since timestamptz,
    closed_at timestamptz,
    check (closed_at is null or fine_since is not null)
);
-- Two workers that see one fault raise one alert.
create unique index alerts_open on capi.alerts (feed, kind) where closed_at is null;
create index alerts_by_feed on capi.alerts (feed, raised_at desc);
comment on table capi.alerts is
    'Faults and thresholds that people are told of: one open alert a feed and kind.';

-- Each channel is told for itself: one that is dead is tried again, and the others are not
-- told twice.
create table capi.alert_tellings (
    alert_id bigint not null references capi.alerts on delete cascade,
    channel text collate "C" not null,
    told_at timestamptz,
    told_figure double precision,
    over_told_at timestamptz,
    -- A worker is at it, until then.
    taken_until timestamptz,
    primary key (alert_id, channel),
    check ((told_at is null) = (told_figure is null))
);
comment on table capi.alert_tellings is
    'Which channel was told of an alert, when, and that it is over.';
