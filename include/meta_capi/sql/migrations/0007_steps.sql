-- Each step that writes leaves a row, by which it knows whether its COMMIT was made when the
-- answer was lost. A transaction's number says so only until a crash: PostgreSQL gives it
-- again when no trace of the first one was written.

create table capi.steps (
    step uuid primary key default gen_random_uuid(),
    -- False: it was asked for before it was committed, and cannot be any more.
    stands boolean not null default true,
    made_at timestamptz not null default capi.clock()
);
create index steps_by_time on capi.steps (made_at);
comment on table capi.steps is
    'The steps of the last day; a worker that has not heard an answer asks whether its own is here.';

create function capi.mark_step() returns uuid language plpgsql as $$
declare
    mark uuid;
begin
    if pg_current_xact_id_if_assigned() is null then
        return null;
    end if;
    insert into capi.steps default values returning step into mark;
    return mark;
end $$;
