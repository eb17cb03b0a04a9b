-- The database that `make bench` measures on. :scale 100 is about 1.5 GB, 20 about 0.3 GB; pgbench adds its
-- tables beside these. Everything is drawn from a fixed seed, in one process, so that runs can be compared.
SET max_parallel_workers_per_gather = 0;
SET synchronous_commit = off;
SELECT setseed(0.4242);

CREATE TABLE customers (
    id bigint PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    profile jsonb NOT NULL
);
INSERT INTO customers
SELECT n,
       md5(random()::text) || '@' || (ARRAY['example.org', 'example.com', 'mail.example'])[1 + n % 3],
       initcap(left(md5(random()::text), 7)) || ' ' || initcap(left(md5(random()::text), 9)),
       timestamptz '2020-01-01 00:00:00+00' + n * interval '7 minutes',
       jsonb_build_object(
           'plan', (ARRAY['free', 'basic', 'pro', 'business'])[1 + floor(random() * 4)::int],
           'points', floor(random() * 100000)::int,
           'address', jsonb_build_object('city', left(md5(random()::text), 8),
                                         'zip', lpad(floor(random() * 99999)::text, 5, '0'),
                                         'street', md5(random()::text)),
           'tags', jsonb_build_array('t' || n % 17, 't' || n % 23, left(md5(random()::text), 6)),
           'newsletter', random() < 0.3)
FROM generate_series(1, 3000 * :scale) AS n;

CREATE TABLE orders (
    id bigint PRIMARY KEY,
    customer_id bigint NOT NULL,
    placed_at timestamptz NOT NULL,
    status text NOT NULL,
    total numeric(12, 2) NOT NULL,
    reference uuid NOT NULL,
    note text
);
INSERT INTO orders
SELECT n,
       1 + floor(random() * 3000 * :scale)::bigint,
       timestamptz '2021-01-01 00:00:00+00' + n * interval '31 seconds',
       (ARRAY['new', 'paid', 'packed', 'sent', 'returned'])[1 + floor(random() * random() * 5)::int],
       round((random() * 900)::numeric, 2),
       md5(random()::text)::uuid,
       CASE WHEN random() < 0.25 THEN md5(random()::text) || ' ' || md5(random()::text) END
FROM generate_series(1, 46000 * :scale) AS n;

CREATE UNIQUE INDEX customers_by_email ON customers (email);
CREATE INDEX orders_by_customer ON orders (customer_id, placed_at);
CREATE INDEX orders_by_status ON orders (status, placed_at);
ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers;
VACUUM ANALYZE;
