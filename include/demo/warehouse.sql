-- The sample warehouse: what the three shipped feeds read.
-- Columns are typed as loosely as in life, so that the dirt of the sample fits in.
-- No table has a primary key: duplicate keys are part of the sample.

drop schema if exists shop cascade;

create schema shop;

create table shop.offline_purchases (
    order_id text not null,
    store_id text not null,
    store_country text not null,
    purchased_at timestamptz,
    loaded_at timestamptz not null,
    amount numeric(18, 3),
    currency text,
    items jsonb,
    email text,
    phone text,
    first_name text,
    last_name text,
    birthday date,
    gender text,
    city text,
    state text,
    postcode text,
    country text,
    customer_id text,
    marketing_consent boolean,
    limited_data_use boolean not null
);

comment on table shop.offline_purchases is
    'One row per purchase in a store, in many countries and currencies.';
comment on column shop.offline_purchases.loaded_at is
    'When the row became known; the cursor.';

create table shop.phone_orders (
    order_id text not null,
    agent_id text not null,
    called_at text,
    loaded_at timestamptz not null,
    amount text,
    currency text,
    items text,
    email text,
    phone text,
    first_name text,
    last_name text,
    birthday text,
    city text,
    postcode text,
    country text,
    customer_id text,
    marketing_consent text
);

comment on table shop.phone_orders is
    'One row per order by telephone, as the call centre''s software exports it.';
comment on column shop.phone_orders.called_at is
    'Local time in Zurich, as 31.12.2026 23:59.';
comment on column shop.phone_orders.amount is
    'With a decimal comma, as 1.234,50.';

create table shop.lead_stages (
    lead_key text not null,
    stage text not null,
    stage_at bigint,
    lead_created_at timestamptz not null,
    updated_at timestamptz not null,
    lead_id text,
    email text,
    phone text,
    first_name text,
    last_name text,
    country text
);

comment on table shop.lead_stages is
    'One row per stage that a lead reached in the CRM.';
comment on column shop.lead_stages.stage_at is
    'Seconds since 1970.';
comment on column shop.lead_stages.lead_id is
    'Meta''s id of the lead, 15 to 17 digits, as text.';

create table shop.sample_faults (
    table_name text not null,
    row_key text not null,
    fault text not null
);

comment on table shop.sample_faults is
    'Which rows the generator spoilt, and how; see include/demo/faults.py.';

create table shop.sample_origin (
    seed bigint not null,
    until timestamptz not null,
    scale double precision not null
);

comment on table shop.sample_origin is
    'What the sample was made from: the same three values make the same rows.';

create index offline_purchases_by_loaded_at on shop.offline_purchases (loaded_at);
create index phone_orders_by_loaded_at on shop.phone_orders (loaded_at);
create index lead_stages_by_updated_at on shop.lead_stages (updated_at);
create index offline_purchases_by_order_id on shop.offline_purchases (order_id);
create index phone_orders_by_order_id on shop.phone_orders (order_id);
create index lead_stages_by_key on shop.lead_stages (lead_key, stage);
