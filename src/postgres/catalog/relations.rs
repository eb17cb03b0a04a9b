//! Relations and their columns.

use std::collections::HashMap;

use super::{CatalogError, Reader, dumped_schema, no_member};
use crate::domain::inventory::{Column, Persistence, Relation, RelationKind};

const RELATIONS: &str = concat!(
    "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
            pg_catalog.pg_get_userbyid(c.relowner)::text, c.relrowsecurity, c.relforcerowsecurity,
            CASE WHEN c.relispartition THEN parents.names END,
            pg_catalog.pg_get_expr(c.relpartbound, c.oid),
            ARRAY(SELECT o FROM unnest(c.reloptions) o UNION ALL
                  SELECT 'toast.' || o FROM pg_catalog.pg_class t, unnest(t.reloptions) o
                   WHERE t.oid = c.reltoastrelid),
            (SELECT s.spcname::text FROM pg_catalog.pg_tablespace s WHERE s.oid = c.reltablespace),
            CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid)
                 WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'access method', (SELECT am.amname FROM pg_catalog.pg_am am
                                 WHERE am.oid = c.relam AND am.amname <> 'heap' AND c.relkind IN ('r', 'p', 'm')),
              'replica identity', CASE WHEN c.relkind IN ('r', 'p') THEN CASE c.relreplident
                  WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full'
                  WHEN 'i' THEN 'index ' || (SELECT ic.relname FROM pg_catalog.pg_index i
                                               JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
                                              WHERE i.indrelid = c.oid AND i.indisreplident) END END,
              'of type', CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END,
              'inherits', CASE WHEN NOT c.relispartition THEN parents.names END,
              'populated', CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'no' END,
              'server', (SELECT s.srvname FROM pg_catalog.pg_foreign_table f
                           JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
              'foreign options', (SELECT (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest(f.ftoptions) o)
                                    FROM pg_catalog.pg_foreign_table f WHERE f.ftrelid = c.oid),
              'sequence', (SELECT pg_catalog.format('%s start %s increment %s from %s to %s cache %s%s',
                             pg_catalog.format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
                             s.seqcache, CASE WHEN s.seqcycle THEN ' cycle' END)
                             FROM pg_catalog.pg_sequence s WHERE s.seqrelid = c.oid),
              'owned by', CASE WHEN c.relkind = 'S' THEN
                          (SELECT tn.nspname || '.' || t.relname || '.' || a.attname
                             FROM pg_catalog.pg_depend d
                             JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
                             JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
                             JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
                            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                              AND d.objsubid = 0 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                              AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i') LIMIT 1) END))::text,
            c.relacl::text[],
            pg_catalog.acldefault(CASE WHEN c.relkind = 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)::text[]
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL (
            SELECT pg_catalog.string_agg(pn.nspname || '.' || p.relname, ', ' ORDER BY i.inhseqno) AS names
              FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
              JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace WHERE i.inhrelid = c.oid) AS parents
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid")
);

const COLUMNS: &str = concat!(
    "SELECT c.oid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
            pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
            CASE WHEN a.attcollation <> t.typcollation THEN
                 (SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
                    FROM pg_catalog.pg_collation co JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
                   WHERE co.oid = a.attcollation) END,
            CASE WHEN c.relkind <> 'v' THEN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'storage', CASE WHEN a.attstorage <> t.typstorage THEN CASE a.attstorage WHEN 'p' THEN 'plain'
                 WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' WHEN 'x' THEN 'extended' END END,
              'compression', CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4'
                 ELSE NULLIF(a.attcompression::text, '') END,
              'statistics target', CASE WHEN a.attstattarget >= 0 THEN a.attstattarget::text END,
              'options', (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest(a.attoptions) o
                 WHERE o !~ '^pg_attver='),
              'foreign options', (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest(a.attfdwoptions) o)))::text END,
            a.attacl::text[], '{}'::text[]
       FROM pg_catalog.pg_attribute a
       JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
       LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid"),
    " ORDER BY c.oid, a.attnum"
);

pub(super) async fn read(reader: &Reader<'_>) -> Result<Vec<Relation>, CatalogError> {
    const WHAT: &str = "relations";
    let mut columns = columns(reader).await?;
    let mut relations = Vec::new();
    for row in reader.rows(WHAT, RELATIONS).await? {
        let oid: u32 = reader.cell(WHAT, &row, 0)?;
        let name: String = reader.cell(WHAT, &row, 2)?;
        let mut options: Vec<String> = reader.cell(WHAT, &row, 10)?;
        options.sort();
        relations.push(Relation {
            schema: reader.cell(WHAT, &row, 1)?,
            kind: kind(reader.cell(WHAT, &row, 3)?)?,
            persistence: match reader.cell(WHAT, &row, 4)? {
                "u" => Persistence::Unlogged,
                _ => Persistence::Permanent,
            },
            owner: reader.cell(WHAT, &row, 5)?,
            columns: columns.remove(&oid).unwrap_or_default(),
            row_security: reader.cell(WHAT, &row, 6)?,
            force_row_security: reader.cell(WHAT, &row, 7)?,
            partition_of: reader.cell(WHAT, &row, 8)?,
            partition_bound: reader.cell(WHAT, &row, 9)?,
            options,
            tablespace: reader.cell(WHAT, &row, 11)?,
            definition: reader.cell(WHAT, &row, 12)?,
            facts: reader.facts(WHAT, &row, 13)?,
            acl: reader.acl(WHAT, &row, 14, &name)?,
            name,
        });
    }
    Ok(relations)
}

fn kind(letter: &str) -> Result<RelationKind, CatalogError> {
    Ok(match letter {
        "r" => RelationKind::Table,
        "p" => RelationKind::PartitionedTable,
        "v" => RelationKind::View,
        "m" => RelationKind::MaterializedView,
        "f" => RelationKind::ForeignTable,
        "S" => RelationKind::Sequence,
        _ => return Err(CatalogError::Unknown { what: "relkind", value: letter.to_owned() }),
    })
}

async fn columns(reader: &Reader<'_>) -> Result<HashMap<u32, Vec<Column>>, CatalogError> {
    const WHAT: &str = "columns";
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for row in reader.rows(WHAT, COLUMNS).await? {
        let name: String = reader.cell(WHAT, &row, 1)?;
        columns.entry(reader.cell(WHAT, &row, 0)?).or_default().push(Column {
            type_name: reader.cell(WHAT, &row, 2)?,
            not_null: reader.cell(WHAT, &row, 3)?,
            default: reader.cell(WHAT, &row, 4)?,
            identity: match reader.cell(WHAT, &row, 5)? {
                "a" => Some("always".to_owned()),
                "d" => Some("by default".to_owned()),
                _ => None,
            },
            generated: match reader.cell(WHAT, &row, 6)? {
                "s" => Some("stored".to_owned()),
                "v" => Some("virtual".to_owned()),
                _ => None,
            },
            collation: reader.cell(WHAT, &row, 7)?,
            facts: reader.facts(WHAT, &row, 8)?,
            acl: reader.acl(WHAT, &row, 9, &name)?,
            name,
        });
    }
    Ok(columns)
}
