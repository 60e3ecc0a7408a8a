-- Meta's own scores of a dataset's events, one reading a day: numbers, and Meta's words
-- for match keys.

-- When each is asked for: of two workers one asks, and one that dies is followed later.
create table capi.score_readings (
    dataset_id text collate "C" not null,
    surface text collate "C" not null check (surface in ('web', 'offline')),
    next_at timestamptz not null,
    read_at timestamptz,
    -- The catalogue's code of why the last one failed, and since when none went through.
    trouble text collate "C",
    trouble_since timestamptz,
    primary key (dataset_id, surface),
    check ((trouble is null) = (trouble_since is null))
);
comment on table capi.score_readings is
    'When Meta''s scores of a dataset were read, and when they are read next.';

create table capi.scores (
    dataset_id text collate "C" not null,
    surface text collate "C" not null,
    event_name text collate "C" not null,
    day date not null,
    -- 0 to 10
    score double precision check (score between 0 and 10),
    match_key_score double precision check (match_key_score between 0 and 10),
    frequency_score double precision check (frequency_score between 0 and 10),
    freshness_score double precision check (freshness_score between 0 and 10),
    upload_frequency text collate "C",  -- a word of Meta's: real_time, hourly, ...
    -- in percent; ACR may be more than all there was
    event_coverage double precision check (event_coverage >= 0),
    coverage_goal double precision check (coverage_goal between 0 and 100),
    acr double precision check (acr >= 0),
    primary key (dataset_id, surface, event_name, day),
    foreign key (dataset_id, surface) references capi.score_readings
);
comment on table capi.scores is
    'What Meta says of the quality of a dataset''s events, by event name and UTC day.';

create table capi.score_keys (
    dataset_id text collate "C" not null,
    surface text collate "C" not null,
    event_name text collate "C" not null,
    day date not null,
    match_key text collate "C" not null,  -- Meta's word: email, phone, ip_address, ...
    -- in percent
    coverage double precision check (coverage between 0 and 100),
    gain double precision check (gain >= 0),
    primary key (dataset_id, surface, event_name, day, match_key),
    foreign key (dataset_id, surface, event_name, day)
        references capi.scores on delete cascade
);
comment on table capi.score_keys is
    'How many events had a match key, by Meta''s count, and what more of it would add.';
