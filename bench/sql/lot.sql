-- A table of so many purchases, made from the sample's: every copy of a sample's row has
-- a key, an address, a number and a customer of its own; names and places repeat, as in
-- life. What was known over sixty days is here known over six, so that no party has to
-- leave a row out for its age: one peer sends nothing older than seven days.
create table {lot} (like shop.offline_purchases);

insert into {lot}
with base as materialized (
    select purchases.*, row_number() over () as number, count(*) over () as total
    from shop.offline_purchases as purchases
    where not {sound} or not exists (
        select from shop.sample_faults as faults
        where faults.table_name = 'offline_purchases' and faults.row_key = purchases.order_id
    )
),
moved as (
    select
        base.*, copy,
        origin.until - (origin.until - base.loaded_at) / 10 as known_at
    from base
    cross join shop.sample_origin as origin
    cross join lateral generate_series(0, ({rows} - number) / total) as copy
    where number <= {rows}
)
select
    case when order_id like 'S-%'
        then {prefix} || 'S' || copy || substr(order_id, 2)
        else order_id
    end,
    store_id, store_country,
    known_at - (loaded_at - purchased_at),
    known_at,
    amount, currency, items,
    case when email like '%_@_%' then copy || '.' || email else email end,
    case when phone ~ '[0-9]{{4}}$'
        then left(phone, -4)
            || lpad(((right(phone, 4)::int + copy * 7919) % 10000)::text, 4, '0')
        else phone
    end,
    first_name, last_name, birthday, gender, city, state, postcode, country,
    customer_id || '-' || copy,
    marketing_consent, limited_data_use
from moved
order by known_at;

create index on {lot} (loaded_at);

create index on {lot} (order_id);
