-- Everything a reader can see in the database, one line per thing.
SET extra_float_digits = 3;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = '';
SET row_security = off;
-- Columns by name: a restored child table has its inherited columns first.
SELECT format(
    $$SELECT %L, count(*), md5(coalesce(string_agg(line, chr(10) ORDER BY line COLLATE "C"), ''))
      FROM (SELECT ROW(%s)::text AS line FROM ONLY %s) AS t$$,
    'table ' || c.oid::regclass,
    (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname COLLATE "C")
     FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
    c.oid::regclass)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relispopulated
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'
ORDER BY c.oid::regclass::text COLLATE "C"
\gexec
SELECT format('SELECT %L, last_value, is_called FROM %s',
    'sequence ' || c.oid::regclass, c.oid::regclass)
FROM pg_catalog.pg_class AS c
WHERE c.relkind = 'S'
ORDER BY c.oid::regclass::text COLLATE "C"
\gexec
SELECT 'large object', oid, md5(lo_get(oid))
FROM pg_catalog.pg_largeobject_metadata ORDER BY oid;
