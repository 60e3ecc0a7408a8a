-- Meta's own scores: who reads them, and what was read. page.sql shows them.

-- name: take
-- Take the reading of a surface, if it is due. A worker that dies with it is followed by
-- the next one in an hour.
insert into capi.score_readings as r (dataset_id, surface, next_at)
values (%(dataset_id)s, %(surface)s, capi.clock() + interval '1 hour')
on conflict (dataset_id, surface) do update
set next_at = excluded.next_at
where r.next_at <= capi.clock() or %(now)s
returning true as taken;

-- name: read
-- Remember that it was read; it is read next on the next UTC day, or in an hour where Meta
-- had no score yet.
update capi.score_readings
set read_at = capi.clock(),
    next_at = case
        when %(events)s > 0 then date_trunc('day', capi.clock(), 'UTC') + interval '1 day'
        else capi.clock() + interval '1 hour'
    end,
    trouble = null,
    trouble_since = null
where dataset_id = %(dataset_id)s and surface = %(surface)s;

-- name: fail
-- Remember why it could not be read. What may pass is tried again in an hour.
update capi.score_readings
set trouble = %(trouble)s,
    trouble_since = coalesce(trouble_since, capi.clock()),
    next_at = capi.clock() + %(pause)s
where dataset_id = %(dataset_id)s and surface = %(surface)s;

-- name: forget_today
-- A second reading of a day takes the first one's place.
delete from capi.scores
where dataset_id = %(dataset_id)s
    and surface = %(surface)s
    and day = (capi.clock() at time zone 'UTC')::date;

-- name: keep
-- Keep what was read of an event.
insert into capi.scores (
    dataset_id, surface, event_name, day, score, match_key_score, frequency_score,
    freshness_score, upload_frequency, event_coverage, coverage_goal, acr
)
values (
    %(dataset_id)s, %(surface)s, %(event_name)s, (capi.clock() at time zone 'UTC')::date,
    %(score)s, %(match_key_score)s, %(frequency_score)s, %(freshness_score)s,
    %(upload_frequency)s, %(event_coverage)s, %(coverage_goal)s, %(acr)s
);

-- name: keep_keys
-- Keep what was read of an event's match keys.
insert into capi.score_keys (
    dataset_id, surface, event_name, day, match_key, coverage, gain
)
select
    %(dataset_id)s, %(surface)s, %(event_name)s, (capi.clock() at time zone 'UTC')::date,
    k.match_key, k.coverage, k.gain
from unnest(
    %(match_keys)s::text[], %(coverages)s::double precision[],
    %(gains)s::double precision[]
) as k (match_key, coverage, gain);
