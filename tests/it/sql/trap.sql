-- An index that springs while it is built, as often as the file `:shots` says, and ends its session or runs into
-- a deadlock, as the file's second word says. The index of an empty table springs nothing.
CREATE TABLE bait (n integer);
CREATE TABLE other (n integer);
CREATE FUNCTION public.spring() RETURNS void LANGUAGE plpgsql AS $spring$
DECLARE
    file text := ':shots';
    words text[] := pg_catalog.regexp_split_to_array(pg_catalog.pg_read_file(file), '\s+');
    client text;
BEGIN
    IF words[1]::integer < 1 THEN
        RETURN;
    END IF;
    EXECUTE pg_catalog.format('COPY (SELECT %L) TO %L', (words[1]::integer - 1) || ' ' || words[2], file);
    IF words[2] = 'end' THEN
        PERFORM pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid());
        PERFORM pg_catalog.pg_sleep(60);
    END IF;
    -- Another session holds `other` and waits for `bait`, which the building of the index holds. It looks for
    -- deadlocks later than this session, which so is the one to give in. (The program reads its input to the end: one
    -- that is gone before breaks the pipe.)
    client := pg_catalog.format(
        'cat >/dev/null; :psql -X -q -h %s -p %s -U postgres -c %s %s </dev/null >/dev/null 2>&1 &',
        pg_catalog.current_setting('unix_socket_directories'), pg_catalog.current_setting('port'),
        '"SET deadlock_timeout = ''1h''; BEGIN; LOCK TABLE public.other; LOCK TABLE public.bait"',
        pg_catalog.current_database());
    EXECUTE pg_catalog.format('COPY (SELECT 1) TO PROGRAM %L', client);
    FOR round IN 1..500 LOOP
        EXIT WHEN EXISTS (SELECT FROM pg_catalog.pg_locks
                           WHERE NOT granted AND relation = 'public.bait'::pg_catalog.regclass);
        PERFORM pg_catalog.pg_sleep(0.02);
    END LOOP;
    LOCK TABLE public.other IN ACCESS SHARE MODE;
END
$spring$;
CREATE FUNCTION public.trap(n integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $trap$
BEGIN
    PERFORM public.spring();
    RETURN n;
END
$trap$;
CREATE INDEX trapped ON bait (public.trap(n));
INSERT INTO bait VALUES (1);
INSERT INTO other SELECT generate_series(1, 100);
