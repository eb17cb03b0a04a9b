-- The role that takes backups, with the least that it needs. For psql, as a superuser:
--
--   psql -X -d postgres -f config/roles.sql                    role `pgkeep`
--   psql -X -d postgres -v bypassrls=1 -f config/roles.sql     where tables have row security
--   psql -X -d shop     -f config/roles.sql                    once in each database with large objects
--   … -v role=dumper                                           another name
--
-- Then give it a password (`\password pgkeep`) or a line in pg_hba.conf. Safe to run again.
-- It can read every row and every password hash: treat its password like a superuser's.
\set ON_ERROR_STOP on
\if :{?role}
\else
  \set role pgkeep
\endif
BEGIN;

SELECT format('CREATE ROLE %I', :'role')
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = :'role') \gexec

-- Sessions of a snapshot: the lock, the holder of the tables, pg_dump, pg_dumpall; twice, for two at once.
ALTER ROLE :"role" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION INHERIT CONNECTION LIMIT 8;

-- A second fence, not the first: the role has nothing that it could write to, and this it could switch off itself.
ALTER ROLE :"role" SET default_transaction_read_only = on;

-- SELECT on all tables and sequences and USAGE on all schemas of all databases, those to come included. It is also
-- all that LOCK TABLE … IN ACCESS SHARE MODE asks for, and what lets pg_dumpall keep roles with their passwords.
GRANT pg_read_all_data TO :"role";

-- Everybody may connect, unless that was taken away.
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', datname, :'role')
  FROM pg_catalog.pg_database
 WHERE datallowconn AND NOT has_database_privilege(:'role', oid, 'CONNECT') \gexec

-- pg_dump refuses a table whose policies would hide rows from it. BYPASSRLS lets the role see them all, and gives it
-- nothing to write. Without it `pgkeep check` names such tables; their rows can be left out by exclude_table_data.
\if :{?bypassrls}
  ALTER ROLE :"role" BYPASSRLS;
\endif

-- Large objects are not part of pg_read_all_data. Those of this database, one by one; run it again for new ones, or
-- have their writers grant it (from PostgreSQL 18 on: ALTER DEFAULT PRIVILEGES … GRANT SELECT ON LARGE OBJECTS).
-- Not `lo_compat_privileges`: that would let the role write to them, too.
SELECT format('GRANT SELECT ON LARGE OBJECT %s TO %I', l.oid, :'role')
  FROM pg_catalog.pg_largeobject_metadata l
 WHERE NOT EXISTS (
       SELECT FROM pg_catalog.aclexplode(l.lomacl) a
        WHERE a.privilege_type = 'SELECT' AND a.grantee IN (0, :'role'::regrole::oid)) \gexec

COMMIT;
