#!/bin/sh
# Two databases with an owner each, who has no business in the other's. The postgres image
# runs this once, when its volume is empty. psql reads and quotes the passwords.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv ledger_password LEDGER_DB_PASSWORD

create role airflow login password :'airflow_password';
create database airflow owner airflow;
revoke connect on database airflow from public;

create role capi login password :'ledger_password';
create database conversions owner capi;
revoke connect on database conversions from public;
SQL
