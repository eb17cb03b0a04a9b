-- A schema that holds one of everything a dump can hold, for tests that restore and compare.
-- Runs as a superuser on an empty database of PostgreSQL 15 to 18 with the contrib modules.
-- Roles are shared by the cluster, so they are made only where they are missing. Plain SQL, no psql commands.
SET client_min_messages = warning;
SET TimeZone = 'Asia/Kathmandu';

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['nasty_owner', 'nasty_reader', 'nasty Role "x"'] LOOP
    -- Another test may be making it at this moment.
    BEGIN
      EXECUTE format('CREATE ROLE %I', name);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
END $$;

-- Extensions: several schemas, one with a table whose rows a dump keeps.
CREATE SCHEMA ext;
CREATE EXTENSION pgcrypto WITH SCHEMA ext;
CREATE EXTENSION citext;
CREATE EXTENSION hstore WITH SCHEMA ext;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION file_fdw;

CREATE SCHEMA shop AUTHORIZATION nasty_owner;
CREATE SCHEMA "Weird Schema ""q"" ünï";
COMMENT ON SCHEMA "Weird Schema ""q"" ünï" IS 'a schema with an awkward name';
GRANT USAGE ON SCHEMA shop TO nasty_reader WITH GRANT OPTION;

-- Types
CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'it''s great');
ALTER TYPE shop.mood ADD VALUE 'meh' BEFORE 'ok';
CREATE DOMAIN shop.email AS citext CONSTRAINT has_at CHECK (VALUE ~ '@') NOT NULL;
CREATE DOMAIN shop.positive AS numeric(12, 2) DEFAULT 1.5 CHECK (VALUE > 0);
CREATE TYPE shop.address AS (street text, "Zip Code" varchar(10), lines text[]);
COMMENT ON COLUMN shop.address.street IS 'with number';
CREATE TYPE shop.price_range AS RANGE (subtype = numeric, multirange_type_name = shop.price_ranges);
CREATE COLLATION shop.german (provider = icu, locale = 'de-u-co-phonebk', deterministic = false);

-- Functions of each kind
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS
  $f$ BEGIN NEW.note := coalesce(NEW.note, '') || ' touched "größe" \ '; RETURN NEW; END $f$;
CREATE FUNCTION shop.twice(a integer, OUT b integer) LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
  RETURN a * 2;
CREATE FUNCTION shop.twice(a text, VARIADIC rest text[] DEFAULT ARRAY['x']) RETURNS text LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = shop, pg_temp AS $$ SELECT a || a || array_to_string(rest, ',') $$;
CREATE FUNCTION shop."Weird Name"("Ärg" shop.mood) RETURNS TABLE (m shop.mood, n bigint) LANGUAGE sql
  BEGIN ATOMIC SELECT "Ärg", 1::bigint; END;
CREATE PROCEDURE shop.tidy(INOUT done boolean DEFAULT false) LANGUAGE plpgsql AS
  $$ BEGIN done := true; END $$;
CREATE AGGREGATE shop.longest(text) (sfunc = textcat, stype = text, initcond = '');
CREATE AGGREGATE shop.how_many(*) (sfunc = int8inc, stype = int8, initcond = '0');
REVOKE EXECUTE ON FUNCTION shop.twice(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shop.twice(integer) TO nasty_reader, "nasty Role ""x""";
ALTER FUNCTION shop.touch() OWNER TO nasty_owner;

-- Operators, a class, a cast
CREATE FUNCTION shop.same(shop.address, shop.address) RETURNS boolean LANGUAGE sql IMMUTABLE
  RETURN ($1).street = ($2).street;
CREATE OPERATOR shop.=== (function = shop.same, leftarg = shop.address, rightarg = shop.address, commutator = OPERATOR(shop.===));
CREATE OPERATOR FAMILY shop.loose USING hash;
CREATE FUNCTION shop.mood_number(shop.mood) RETURNS integer LANGUAGE sql IMMUTABLE RETURN length($1::text);
CREATE CAST (shop.mood AS integer) WITH FUNCTION shop.mood_number(shop.mood) AS ASSIGNMENT;

-- Text search
CREATE TEXT SEARCH DICTIONARY shop.plain (template = pg_catalog.simple, stopwords = 'english');
CREATE TEXT SEARCH CONFIGURATION shop.words (copy = pg_catalog.english);
ALTER TEXT SEARCH CONFIGURATION shop.words ALTER MAPPING FOR asciiword WITH shop.plain, english_stem;

-- Tables: identity, generated, serial, quoted names, awkward values
CREATE TABLE shop.customers (
  id bigint GENERATED ALWAYS AS IDENTITY (START WITH 1000 INCREMENT BY 7) PRIMARY KEY,
  email shop.email UNIQUE,
  mood shop.mood DEFAULT 'ok',
  home shop.address,
  born date CHECK (born > '1900-01-01'),
  seen timestamptz DEFAULT '2026-11-21 03:00:00+05:45',
  tags ext.hstore,
  doc jsonb,
  name text COLLATE shop.german,
  shout text GENERATED ALWAYS AS (upper(name)) STORED,
  note text,
  balance money DEFAULT 0,
  secret bytea DEFAULT '\x00ff'
) WITH (fillfactor = 80, toast.autovacuum_enabled = false);
ALTER TABLE shop.customers OWNER TO nasty_owner;
ALTER TABLE shop.customers ALTER COLUMN doc SET STORAGE EXTERNAL, ALTER COLUMN note SET STATISTICS 500,
  ALTER COLUMN mood SET (n_distinct = 4);
ALTER TABLE shop.customers ADD COLUMN gone integer;
ALTER TABLE shop.customers DROP COLUMN gone;
CREATE INDEX customers_lower ON shop.customers USING btree (lower(name)) INCLUDE (mood) WHERE mood <> 'sad';
CREATE INDEX "Customers Tags" ON shop.customers USING gin (tags ext.gin_hstore_ops);
CREATE STATISTICS shop.customers_stats (dependencies, ndistinct) ON mood, born FROM shop.customers;
COMMENT ON TABLE shop.customers IS 'who buys';
COMMENT ON COLUMN shop.customers.name IS E'two\nlines';
GRANT SELECT ON shop.customers TO nasty_reader;
GRANT UPDATE (note), SELECT (email) ON shop.customers TO "nasty Role ""x""";
ALTER TABLE shop.customers CLUSTER ON customers_pkey;
INSERT INTO shop.customers (email, mood, home, born, tags, doc, name, balance, secret)
  SELECT 'user' || i || '@example.org', 'it''s great', ROW('Straße ' || i, '0' || i, ARRAY['a', NULL, 'c"d'])::shop.address,
         date '2000-02-29' + i, ext.hstore('k', i::text), jsonb_build_object('i', i, 'n', NULL),
         E'tab\tnew\nline \\. ' || i, i * 1.25::numeric::money, decode(md5(i::text), 'hex')
    FROM generate_series(1, 200) i;
INSERT INTO shop.customers (email, mood) VALUES ('nobody@example.org', NULL);

CREATE TABLE shop.orders (
  id serial PRIMARY KEY,
  customer bigint NOT NULL,
  total shop.positive NOT NULL,
  span shop.price_range,
  placed timestamptz NOT NULL DEFAULT now(),
  EXCLUDE USING gist (span WITH &&) DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE shop.orders ADD CONSTRAINT orders_customer FOREIGN KEY (customer) REFERENCES shop.customers
  ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
INSERT INTO shop.orders (customer, total) SELECT 1000 + 7 * (i % 200), i FROM generate_series(1, 500) i;
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE shop.orders ADD CONSTRAINT not_yet CHECK (total < 400) NOT VALID;
CREATE TRIGGER touch BEFORE UPDATE OF note ON shop.customers FOR EACH ROW WHEN (OLD.note IS DISTINCT FROM NEW.note)
  EXECUTE FUNCTION shop.touch();
ALTER TABLE shop.customers DISABLE TRIGGER touch;
CREATE RULE keep AS ON DELETE TO shop.orders DO INSTEAD NOTHING;

-- Circular foreign keys, one of them onto its own table
CREATE TABLE shop.chicken (id integer PRIMARY KEY, egg integer, mother integer REFERENCES shop.chicken);
CREATE TABLE shop.egg (id integer PRIMARY KEY, chicken integer REFERENCES shop.chicken DEFERRABLE);
INSERT INTO shop.chicken VALUES (1, 1, NULL), (2, 2, 1);
INSERT INTO shop.egg VALUES (1, 2), (2, 1);
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE shop.chicken ADD FOREIGN KEY (egg) REFERENCES shop.egg DEFERRABLE INITIALLY DEFERRED;

-- Awkward names
CREATE TABLE "Weird Schema ""q"" ünï"."Täble ""with"" $1 .dots" ("Cölumn 'x'" integer PRIMARY KEY, "select" text);
INSERT INTO "Weird Schema ""q"" ünï"."Täble ""with"" $1 .dots" VALUES (1, '\.'), (2, ''), (3, NULL), (4, '\N');
CREATE TABLE "Weird Schema ""q"" ünï"."new
line" (a integer);
CREATE SEQUENCE "Weird Schema ""q"" ünï"."Sequence X" AS smallint MAXVALUE 9 CYCLE CACHE 3;
DO $$ BEGIN PERFORM nextval('"Weird Schema ""q"" ünï"."Sequence X"'); END $$;
CREATE TABLE shop.nothing ();
INSERT INTO shop.nothing DEFAULT VALUES;
CREATE SEQUENCE shop.fresh START 42;
CREATE SEQUENCE shop.downwards INCREMENT -5 START -10;

-- Partitions: three levels, list, range, hash, default, a trigger and a foreign key on the parent
CREATE TABLE shop.events (id bigint, at timestamptz NOT NULL, kind text NOT NULL, customer bigint,
  PRIMARY KEY (id, at, kind)) PARTITION BY RANGE (at);
CREATE TABLE shop.events_2025 PARTITION OF shop.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
  PARTITION BY LIST (kind);
CREATE TABLE shop.events_2025_click PARTITION OF shop.events_2025 FOR VALUES IN ('click', 'tap');
CREATE TABLE shop.events_2025_rest PARTITION OF shop.events_2025 DEFAULT PARTITION BY HASH (id);
CREATE TABLE shop.events_2025_rest_0 PARTITION OF shop.events_2025_rest FOR VALUES WITH (modulus 2, remainder 0);
CREATE TABLE shop.events_2025_rest_1 (kind text NOT NULL, customer bigint, at timestamptz NOT NULL, id bigint NOT NULL);
ALTER TABLE shop.events_2025_rest ATTACH PARTITION shop.events_2025_rest_1 FOR VALUES WITH (modulus 2, remainder 1);
CREATE TABLE shop.events_later PARTITION OF shop.events DEFAULT;
CREATE INDEX events_kind ON shop.events (kind);
ALTER TABLE shop.events ADD FOREIGN KEY (customer) REFERENCES shop.customers;
CREATE TRIGGER touch BEFORE INSERT ON shop.events FOR EACH ROW WHEN (NEW.kind = 'never') EXECUTE FUNCTION shop.touch();
ALTER TABLE shop.events_later DISABLE TRIGGER touch;
INSERT INTO shop.events SELECT i, timestamptz '2025-06-01 00:00+00' + i * interval '1 day',
  (ARRAY['click', 'tap', 'view', 'scroll'])[i % 4 + 1], 1000 FROM generate_series(1, 400) i;
-- A foreign key that points at a partitioned table
CREATE TABLE shop.event_notes (id bigint, at timestamptz, kind text, note text,
  FOREIGN KEY (id, at, kind) REFERENCES shop.events);
INSERT INTO shop.event_notes SELECT id, at, kind, 'n' FROM shop.events LIMIT 5;

-- Classical inheritance, with a column added to the parent later
CREATE TABLE shop.animal (name text, CONSTRAINT named CHECK (name <> ''));
CREATE TABLE shop.dog (barks boolean) INHERITS (shop.animal);
ALTER TABLE shop.animal ADD COLUMN legs smallint DEFAULT 4;
INSERT INTO shop.animal VALUES ('cat', 4);
INSERT INTO shop.dog (name, barks) VALUES ('Rex', true), ('Bello', false);

-- Unlogged, typed, with full replica identity
CREATE UNLOGGED TABLE shop.cache (k text PRIMARY KEY, v text);
INSERT INTO shop.cache VALUES ('a', 'b');
CREATE TABLE shop.addresses OF shop.address (street WITH OPTIONS NOT NULL);
ALTER TABLE shop.addresses REPLICA IDENTITY FULL;

-- Views
CREATE VIEW shop.rich WITH (security_barrier) AS SELECT id, name FROM shop.customers WHERE balance > 100::money
  WITH LOCAL CHECK OPTION;
ALTER VIEW shop.rich ALTER COLUMN name SET DEFAULT 'no name';
CREATE RECURSIVE VIEW shop.numbers (n) AS SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5;
CREATE MATERIALIZED VIEW shop.totals AS SELECT customer, sum(total) AS total FROM shop.orders GROUP BY customer;
CREATE UNIQUE INDEX totals_customer ON shop.totals (customer);
CREATE MATERIALIZED VIEW shop.unfilled AS SELECT * FROM shop.totals WITH NO DATA;
-- Views that need each other
CREATE VIEW shop.first AS SELECT 1 AS a;
CREATE VIEW shop.second AS SELECT a FROM shop.first;
CREATE OR REPLACE VIEW shop.first AS SELECT 1 AS a WHERE (SELECT count(*) FROM shop.egg) > 0;

-- Row security
CREATE TABLE shop.secrets (who name DEFAULT current_user, what text);
INSERT INTO shop.secrets VALUES ('nasty_reader', 'a'), ('nasty_owner', 'b');
ALTER TABLE shop.secrets OWNER TO nasty_owner;
ALTER TABLE shop.secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON shop.secrets FOR SELECT TO nasty_reader, "nasty Role ""x""" USING (who = current_user);
CREATE POLICY nobody_writes ON shop.secrets AS RESTRICTIVE FOR INSERT WITH CHECK (what <> '');
GRANT SELECT ON shop.secrets TO nasty_reader;
CREATE TABLE shop.forced (a integer);
ALTER TABLE shop.forced FORCE ROW LEVEL SECURITY;

-- Foreign data, over connections that lead nowhere
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'none');
CREATE USER MAPPING FOR nasty_owner SERVER elsewhere OPTIONS (user 'u', password 'not told');
CREATE USER MAPPING FOR PUBLIC SERVER elsewhere;
CREATE FOREIGN TABLE shop.remote (id integer OPTIONS (column_name 'ID'), name text) SERVER elsewhere
  OPTIONS (schema_name 's', table_name 't');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE shop.file (line text) SERVER files OPTIONS (filename '/nonexistent', format 'text');
GRANT USAGE ON FOREIGN SERVER elsewhere TO nasty_owner;

-- Publications; subscriptions need a publisher and are tested where there is one
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
CREATE PUBLICATION parts FOR TABLE shop.orders (id, total) WHERE (id > 10), TABLE shop.chicken;
CREATE PUBLICATION whole FOR TABLES IN SCHEMA shop;

-- Default privileges
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_owner IN SCHEMA shop GRANT SELECT ON TABLES TO nasty_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE nasty_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Large objects
DO $$
DECLARE made oid := lo_from_bytea(0, 'x');
BEGIN
  PERFORM lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'));
  EXECUTE format('ALTER LARGE OBJECT %s OWNER TO nasty_owner', made);
  EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO nasty_reader', made);
  EXECUTE format('COMMENT ON LARGE OBJECT %s IS ''small''', made);
END $$;

-- Settings of the database
DO $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''5min''', current_database());
  EXECUTE format('ALTER ROLE nasty_reader IN DATABASE %I SET work_mem = ''8MB''', current_database());
END $$;

-- Last: an event trigger that forbids what a restore does, were it enabled too early
CREATE FUNCTION shop.no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
  $$ BEGIN RAISE EXCEPTION 'no % here', tg_tag; END $$;
CREATE EVENT TRIGGER no_ddl ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'DROP TABLE', 'ALTER TABLE')
  EXECUTE FUNCTION shop.no_ddl();
