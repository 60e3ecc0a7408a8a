-- What alerts are judged by, and what is remembered of them. The figures come from the
-- roll-up and from indexes of what waits: a task asks every ten minutes.

-- name: days
-- Deliveries by day and state, as they were last counted.
select day, state::text as state, sum(deliveries)::bigint as deliveries
from (
    select day, state, deliveries
    from capi.day_counts
    where feed = %(feed)s and dataset_id = %(dataset_id)s and day >= %(since)s
    union all
    select day, state, deliveries
    from capi.removed
    where feed = %(feed)s and dataset_id = %(dataset_id)s and day >= %(since)s
) as counted
group by day, state
order by day, state;

-- name: read
-- From when, and until when, the source was read.
select min(interval_start) as read_from, max(interval_end) as read_until
from capi.runs
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and mode = 'send'
    and state = 'reported'
    and planned_at >= %(since)s;

-- name: in_doubt
-- Events in doubt for longer than a while. All of them wait, in a short index.
select count(*) as deliveries
from capi.deliveries
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and not_before is not null
    and state = 'in_doubt'
    and doubt_since < %(before)s;

-- name: expiring
-- What Meta takes no more after a moment, unless it goes out before; to the hour.
select coalesce(sum(deliveries), 0)::bigint as deliveries
from capi.day_waiting
where feed = %(feed)s
    and dataset_id = %(dataset_id)s
    and hour >= %(after)s
    and hour < %(before)s;

-- name: raise
-- Open an alert, or see an open one again.
insert into capi.alerts (feed, kind, sentence, figure)
values (%(feed)s, %(kind)s, %(sentence)s, %(figure)s)
on conflict (feed, kind) where closed_at is null
do update set
    sentence = excluded.sentence,
    figure = excluded.figure,
    last_seen = capi.clock(),
    fine_since = null;

-- name: settle
-- Close open alerts of what has been fine for a while.
update capi.alerts
set
    fine_since = coalesce(fine_since, capi.clock()),
    closed_at = case
        when coalesce(fine_since, capi.clock()) + %(quiet)s <= capi.clock()
            then capi.clock()
    end
where feed = %(feed)s
    and kind = any(%(kinds)s)
    and closed_at is null;

-- name: list_tellings
-- Write down whom an open alert is to be told to.
insert into capi.alert_tellings (alert_id, channel)
select alert_id, %(channel)s
from capi.alerts
where feed = %(feed)s and closed_at is null
on conflict do nothing;

-- name: take
-- Take what a channel has to be told: an alert that is new, that stands for long, or that
-- is twice as bad; and the end of one that it was told of. Of two who ask at a time one
-- gets it. What is fine just now is not told, as long as nobody was.
update capi.alert_tellings as t
set taken_until = capi.clock() + %(lease)s
from capi.alerts as a
where a.alert_id = t.alert_id
    and a.feed = %(feed)s
    and t.channel = %(channel)s
    and (t.taken_until is null or t.taken_until < capi.clock())
    and case
        when a.closed_at is not null then t.told_at is not null and t.over_told_at is null
        when a.fine_since is not null then false
        else t.told_at is null
            or t.told_at + %(remind_after)s <= capi.clock()
            or (a.figure >= 2 * t.told_figure and a.figure > t.told_figure)
    end
returning
    a.alert_id, a.kind, a.sentence, a.figure, a.raised_at, a.closed_at, t.told_at;

-- name: told
-- Remember that a channel was told.
update capi.alert_tellings
set
    told_at = case when %(over)s then told_at else capi.clock() end,
    told_figure = case when %(over)s then told_figure else %(figure)s end,
    over_told_at = case when %(over)s then capi.clock() end,
    taken_until = null
where alert_id = %(alert_id)s and channel = %(channel)s;

-- name: give_back
-- Remember that a channel could not be told; the next one who asks tries again.
update capi.alert_tellings
set taken_until = null
where alert_id = any(%(alert_ids)s) and channel = %(channel)s;

-- name: open
-- What is open.
select alert_id, feed, kind, sentence, figure, raised_at
from capi.alerts
where closed_at is null and feed = any(%(feeds)s)
order by feed, raised_at, kind;
