-- What makes a step at the ledger one that is made once.

-- name: set_bounds
-- A worker that is stopped in the middle of a step loses its locks, and those who wait for
-- them wait only so long.
select
    set_config('idle_in_transaction_session_timeout', '60s', false),
    set_config('lock_timeout', '20s', false);

-- name: mark
-- The row of a step that has written something, to be asked for if the answer to its COMMIT
-- is lost; none if nothing was written.
select capi.mark_step() as mark;

-- name: stands
-- Whether a step was committed. One that is committing is waited for; one that was not can
-- never be, for its row is taken.
insert into capi.steps (step, stands) values (%(step)s, false)
on conflict (step) do update set stands = capi.steps.stands
returning stands;
