-- A row whose key is an e-mail address is named by a fingerprint, too: put back, it would be
-- looked for in vain until it expired.

create or replace function capi.may_replay(delivery capi.deliveries)
returns boolean language sql immutable as $$
    select delivery.source_key !~ '^(nokey|long|personal):[0-9a-f]{32}|#dup[0-9]+$'
        and delivery.state in ('quarantined', 'refused', 'withheld', 'expired')
$$;
