-- A small shop: what a user's database mostly looks like.
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    profile jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE orders (
    id bigserial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    placed_at timestamptz NOT NULL,
    total numeric(12, 2) NOT NULL CHECK (total >= 0),
    note text
);
CREATE INDEX orders_by_customer ON orders (customer_id, placed_at);
CREATE VIEW spending AS SELECT customer_id, sum(total) AS spent FROM orders GROUP BY customer_id;
INSERT INTO customers (name, email, profile)
SELECT 'Customer ' || n, 'c' || n || '@example.org',
       jsonb_build_object('points', n * 7 % 1000, 'tags', jsonb_build_array('a' || n % 5, 'é' || n % 3))
FROM generate_series(1, greatest(1, :orders / 10)) AS n;
INSERT INTO orders (customer_id, placed_at, total, note)
SELECT 1 + n % greatest(1, :orders / 10), timestamptz '2026-01-01 00:00:00+00' + n * interval '1 minute',
       (n * 37 % 100000) / 100.0, CASE n % 7 WHEN 0 THEN NULL ELSE 'note ' || md5(n::text) END
FROM generate_series(1, :orders) AS n;
