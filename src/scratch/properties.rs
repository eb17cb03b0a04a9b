//! What a database is beside its content: owner, grants, settings, comment, labels and the rest.
//!
//! A restored copy that takes a live database's name takes these over from it, or applications would find
//! the right rows and no right to read them. They are read in the transaction that swaps the names, so that
//! a `GRANT` of this very minute is not lost.

use std::collections::BTreeSet;

use tokio_postgres::GenericClient;

use crate::domain::inventory::{AclItem, DatabaseFacts};
use crate::postgres::{quote_ident, quote_literal};

/// Settings whose value is a list of quoted names (`GUC_LIST_QUOTE` in PostgreSQL's source); each item
/// must be quoted apart, as `pg_dump` does.
const LIST_SETTINGS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// One privilege on a database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// Who granted it.
    pub grantor: String,
    /// Who has it; none is PUBLIC.
    pub grantee: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: String,
    /// Whether it may be passed on.
    pub grantable: bool,
}

/// One row's item of `pg_db_role_setting`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// The role it is for; none is every role.
    pub role: Option<String>,
    /// The parameter.
    pub name: String,
    /// Its value as the catalog holds it.
    pub value: String,
}

/// Everything about a database that `ALTER DATABASE`, `GRANT`, `COMMENT` and `SECURITY LABEL` set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseProperties {
    /// Its owner; none is whoever made it.
    pub owner: Option<String>,
    /// Its grants; none where nobody ever granted or revoked, which is not the same as an empty list.
    pub grants: Option<Vec<Grant>>,
    /// Settings that hold in it.
    pub settings: Vec<Setting>,
    /// Its comment.
    pub comment: Option<String>,
    /// Sessions allowed at once; -1 is no limit.
    pub connection_limit: i32,
    /// Security labels: provider and label.
    pub labels: Vec<(String, String)>,
    /// Its default tablespace.
    pub tablespace: String,
    /// Whether anyone may copy it.
    pub is_template: bool,
}

impl DatabaseProperties {
    /// Reads them for the database with that oid, as the transaction of `client` sees it.
    pub async fn read(
        client: &impl GenericClient,
        oid: u32,
    ) -> Result<Option<Self>, tokio_postgres::Error> {
        let sql = "SELECT pg_get_userbyid(d.datdba)::text, d.datacl IS NULL, d.datconnlimit, \
                   d.datistemplate, t.spcname::text, shobj_description(d.oid, 'pg_database') \
                   FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace \
                   WHERE d.oid = $1";
        let Some(row) = client.query_opt(sql, &[&oid]).await? else { return Ok(None) };
        let grants = if row.get(1) { None } else { Some(read_grants(client, oid).await?) };
        let labels = client
            .query(
                "SELECT provider, label FROM pg_shseclabel WHERE classoid = \
                 'pg_database'::regclass AND objoid = $1 ORDER BY 1",
                &[&oid],
            )
            .await?;
        Ok(Some(Self {
            owner: row.get(0),
            grants,
            settings: read_settings(client, oid).await?,
            comment: row.get(5),
            connection_limit: row.get(2),
            labels: labels.iter().map(|row| (row.get(0), row.get(1))).collect(),
            tablespace: row.get(4),
            is_template: row.get(3),
        }))
    }

    /// Those that a snapshot recorded.
    pub fn recorded(facts: &DatabaseFacts) -> Self {
        let settings = facts.settings.iter().flat_map(|group| {
            let role = group.role.clone();
            group.settings.iter().filter_map(move |item| Setting::parse(role.clone(), item))
        });
        Self {
            owner: Some(facts.owner.clone()),
            grants: (!facts.acl.is_empty()).then(|| recorded_grants(&facts.acl)),
            settings: settings.collect(),
            comment: facts.comment.clone(),
            connection_limit: facts.connection_limit,
            labels: Vec::new(),
            tablespace: facts.tablespace.clone(),
            is_template: facts.is_template,
        }
    }

    /// The same for a copy that belongs to whoever makes it, and that no role has rights on.
    #[must_use]
    pub fn without_roles(self) -> Self {
        let settings = self.settings.into_iter().filter(|setting| setting.role.is_none());
        Self { owner: None, grants: None, settings: settings.collect(), ..self }
    }

    /// The statements that give database `name` these properties, the tablespace apart (that one cannot
    /// be set in a transaction; the database is made in it).
    ///
    /// `name` must have nobody's grants yet, and must belong to the present user.
    pub fn statements(&self, name: &str) -> Vec<String> {
        let database = quote_ident(name);
        let mut all = Vec::new();
        if let Some(owner) = &self.owner {
            let name = quote_ident(owner);
            all.push(format!("ALTER DATABASE {database} OWNER TO {name}"));
            if let Some(grants) = &self.grants {
                all.push(format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"));
                all.push(format!("REVOKE ALL ON DATABASE {database} FROM {name}"));
                all.extend(grant_statements(owner, &database, grants));
            }
        }
        all.extend(self.settings.iter().map(|setting| setting.statement(&database)));
        let comment = self.comment.as_deref().map_or_else(|| "NULL".to_owned(), quote_literal);
        all.push(format!("COMMENT ON DATABASE {database} IS {comment}"));
        if self.connection_limit != -1 {
            let limit = self.connection_limit;
            all.push(format!("ALTER DATABASE {database} CONNECTION LIMIT {limit}"));
        }
        all.extend(self.labels.iter().map(|(provider, label)| {
            let (provider, label) = (quote_ident(provider), quote_literal(label));
            format!("SECURITY LABEL FOR {provider} ON DATABASE {database} IS {label}")
        }));
        if self.is_template {
            all.push(format!("ALTER DATABASE {database} IS_TEMPLATE true"));
        }
        all
    }
}

/// Grants in an order in which every grantor has what it passes on.
fn grant_statements(owner: &str, database: &str, grants: &[Grant]) -> Vec<String> {
    let mut statements = Vec::new();
    let mut able: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut rest: Vec<&Grant> = grants.iter().collect();
    loop {
        let ready = |grant: &Grant| {
            grant.grantor == owner
                || able.contains(&(grant.grantor.as_str(), grant.privilege.as_str()))
        };
        let (now, later): (Vec<&Grant>, Vec<&Grant>) = rest.iter().partition(|grant| ready(grant));
        for grant in &now {
            statements.extend(grant.statements(database, owner));
            if let (Some(grantee), true) = (&grant.grantee, grant.grantable) {
                able.insert((grantee, &grant.privilege));
            }
        }
        // A circle cannot be made by GRANT; should the catalog hold one, it is left out.
        if now.is_empty() || later.is_empty() {
            return statements;
        }
        rest = later;
    }
}

impl Grant {
    fn statements(&self, database: &str, owner: &str) -> Vec<String> {
        let grantee = self.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), quote_ident);
        let option = if self.grantable { " WITH GRANT OPTION" } else { "" };
        let grant = format!("GRANT {} ON DATABASE {database} TO {grantee}{option}", self.privilege);
        if self.grantor == owner {
            return vec![grant];
        }
        // The grantor is recorded as the role that grants.
        let role = format!("SET LOCAL ROLE {}", quote_ident(&self.grantor));
        vec![role, grant, "RESET ROLE".to_owned()]
    }
}

impl Setting {
    /// From `name=value`, as `pg_db_role_setting` keeps it.
    fn parse(role: Option<String>, item: &str) -> Option<Self> {
        let (name, value) = item.split_once('=')?;
        Some(Self { role, name: name.to_owned(), value: value.to_owned() })
    }

    fn statement(&self, database: &str) -> String {
        let value = if LIST_SETTINGS.contains(&self.name.as_str()) {
            let items: Vec<String> =
                list_items(&self.value).iter().map(|item| quote_literal(item)).collect();
            if items.is_empty() { "''".to_owned() } else { items.join(", ") }
        } else {
            quote_literal(&self.value)
        };
        let name = quote_ident(&self.name);
        match &self.role {
            Some(role) => {
                let role = quote_ident(role);
                format!("ALTER ROLE {role} IN DATABASE {database} SET {name} TO {value}")
            }
            None => format!("ALTER DATABASE {database} SET {name} TO {value}"),
        }
    }
}

/// PostgreSQL's letters for privileges on databases.
const PRIVILEGES: [(char, &str); 3] = [('C', "CREATE"), ('T', "TEMPORARY"), ('c', "CONNECT")];

/// One grant for each letter of each entry; `*` after a letter is the grant option.
fn recorded_grants(acl: &[AclItem]) -> Vec<Grant> {
    let mut grants = Vec::new();
    for item in acl {
        let letters: Vec<char> = item.privileges.chars().collect();
        for (at, letter) in letters.iter().enumerate() {
            let Some((_, privilege)) = PRIVILEGES.iter().find(|(known, _)| known == letter) else {
                continue;
            };
            grants.push(Grant {
                grantor: item.grantor.clone(),
                grantee: (!item.grantee.is_empty()).then(|| item.grantee.clone()),
                privilege: (*privilege).to_owned(),
                grantable: letters.get(at + 1) == Some(&'*'),
            });
        }
    }
    grants
}

/// The items of a value such as `"$user", public`: separated by commas, double quotes doubled inside.
fn list_items(value: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut rest = value.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut item = String::new();
            let mut chars = quoted.char_indices().peekable();
            let mut end = quoted.len();
            while let Some((at, char)) = chars.next() {
                if char != '"' {
                    item.push(char);
                } else if chars.next_if(|(_, next)| *next == '"').is_some() {
                    item.push('"');
                } else {
                    end = at + 1;
                    break;
                }
            }
            items.push(item);
            rest = quoted[end..].trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            items.push(rest[..end].trim_end().to_owned());
            rest = &rest[end..];
        }
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    items
}

async fn read_grants(
    client: &impl GenericClient,
    oid: u32,
) -> Result<Vec<Grant>, tokio_postgres::Error> {
    let sql = "SELECT pg_get_userbyid(a.grantor)::text, \
               CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END, \
               a.privilege_type, a.is_grantable \
               FROM pg_database d, LATERAL aclexplode(d.datacl) a WHERE d.oid = $1";
    let rows = client.query(sql, &[&oid]).await?;
    let grant = |row: &tokio_postgres::Row| Grant {
        grantor: row.get(0),
        grantee: row.get(1),
        privilege: row.get(2),
        grantable: row.get(3),
    };
    Ok(rows.iter().map(grant).collect())
}

async fn read_settings(
    client: &impl GenericClient,
    oid: u32,
) -> Result<Vec<Setting>, tokio_postgres::Error> {
    let sql = "SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole)::text END, \
               setconfig FROM pg_db_role_setting WHERE setdatabase = $1 ORDER BY setrole";
    let mut settings = Vec::new();
    for row in client.query(sql, &[&oid]).await? {
        let role: Option<String> = row.get(0);
        let items: Vec<String> = row.get(1);
        settings.extend(items.iter().filter_map(|item| Setting::parse(role.clone(), item)));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(grantor: &str, grantee: Option<&str>, privilege: &str, grantable: bool) -> Grant {
        let grantee = grantee.map(str::to_owned);
        Grant { grantor: grantor.into(), grantee, privilege: privilege.into(), grantable }
    }

    #[test]
    fn a_database_nobody_granted_on_gets_no_grants() {
        let plain = DatabaseProperties {
            owner: Some("o".into()),
            connection_limit: -1,
            ..Default::default()
        };
        assert_eq!(
            plain.statements("d"),
            ["ALTER DATABASE \"d\" OWNER TO \"o\"", "COMMENT ON DATABASE \"d\" IS NULL"]
        );
    }

    #[test]
    fn grants_follow_the_chain_of_their_grantors() {
        let properties = DatabaseProperties {
            owner: Some("o".into()),
            grants: Some(vec![
                grant("b", Some("c"), "CONNECT", false),
                grant("a", Some("b"), "CONNECT", true),
                grant("o", Some("a"), "CONNECT", true),
                grant("o", None, "TEMPORARY", false),
            ]),
            connection_limit: -1,
            ..Default::default()
        };
        let all = properties.statements("d");
        assert_eq!(
            all[3..all.len() - 1],
            [
                "GRANT CONNECT ON DATABASE \"d\" TO \"a\" WITH GRANT OPTION",
                "GRANT TEMPORARY ON DATABASE \"d\" TO PUBLIC",
                "SET LOCAL ROLE \"a\"",
                "GRANT CONNECT ON DATABASE \"d\" TO \"b\" WITH GRANT OPTION",
                "RESET ROLE",
                "SET LOCAL ROLE \"b\"",
                "GRANT CONNECT ON DATABASE \"d\" TO \"c\"",
                "RESET ROLE",
            ]
        );
    }

    #[test]
    fn recorded_privileges_become_grants_again() {
        let acl =
            ["=T/o", "o=CTc/o", "app=c*/o"].map(|text| AclItem::parse(text).expect("an entry"));
        let mut grants = recorded_grants(&acl);
        grants.sort();
        assert_eq!(
            grants,
            [
                grant("o", None, "TEMPORARY", false),
                grant("o", Some("app"), "CONNECT", true),
                grant("o", Some("o"), "CONNECT", false),
                grant("o", Some("o"), "CREATE", false),
                grant("o", Some("o"), "TEMPORARY", false),
            ]
        );
    }

    #[test]
    fn list_settings_are_quoted_item_by_item() {
        assert_eq!(list_items("\"$user\", public"), ["$user", "public"]);
        assert_eq!(list_items("\"a\"\"b,c\",d"), ["a\"b,c", "d"]);
        assert!(list_items("").is_empty());
        let setting = |name: &str, value: &str, role: Option<&str>| Setting {
            role: role.map(str::to_owned),
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(
            setting("search_path", "\"$user\", public", None).statement("\"d\""),
            "ALTER DATABASE \"d\" SET \"search_path\" TO '$user', 'public'"
        );
        assert_eq!(
            setting("app.tenant", "it's", Some("r")).statement("\"d\""),
            "ALTER ROLE \"r\" IN DATABASE \"d\" SET \"app.tenant\" TO 'it''s'"
        );
    }
}
