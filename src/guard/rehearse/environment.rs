//! The environment of a rehearsed command: whatever in ours leads to the database leads to the copy. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use crate::config::dotenv_pairs;
use crate::domain::connection::{ConnectionInfo, ConnectionSources, Elsewhere};
use crate::domain::migration::{ADDRESSES, ProjectFiles};
use crate::guard::target::{bare, is_address_of};

/// Set whether they were or not.
const ALWAYS: [&str; 2] = ["DATABASE_URL", "DIRECT_URL"];

/// Variables of libpq that say where a server is, whom it knows, and how it is trusted.
const OF_PLACE: [&str; 20] = [
    "PGCHANNELBINDING",
    "PGGSSDELEGATION",
    "PGGSSLIB",
    "PGHOSTADDR",
    "PGKRBSRVNAME",
    "PGLOADBALANCEHOSTS",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGSERVICE",
    "PGSSLCERT",
    "PGSSLCERTMODE",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLKEY",
    "PGSSLNEGOTIATION",
    "PGSSLROOTCERT",
    "PGSSLSNI",
    "PGTARGETSESSIONATTRS",
    "PGSSLCOMPRESSION",
];

/// Those that lead to the copy by themselves, and two that say nothing of a place: none of them holds an address.
const OF_LIBPQ: [&str; 11] = [
    "PGAPPNAME",
    "PGDATABASE",
    "PGGSSENCMODE",
    "PGHOST",
    "PGOPTIONS",
    "PGPASSFILE",
    "PGPASSWORD",
    "PGPORT",
    "PGSERVICEFILE",
    "PGSSLMODE",
    "PGUSER",
];

/// The copy, for a command.
#[derive(Clone, Copy)]
pub(super) struct Copy<'a> {
    /// On 127.0.0.1.
    pub(super) port: u16,
    /// What every role has there.
    pub(super) password: &'a str,
    /// Its name.
    pub(super) database: &'a str,
    /// Roles that can log in there, the first of them where nothing names one.
    pub(super) roles: &'a [String],
}

/// What is set (or, where it is none, removed) for the command.
pub(super) type Changes = BTreeMap<String, Option<String>>;

/// Files in which a tool may find variables that are not set; what is set goes before them.
const FILES: [&str; 3] = [".env.local", ".env", "prisma/.env"];

/// The variables that the command would see, as far as they can be read as text: ours, and beneath them the project's.
pub(super) fn of(project: &dyn ProjectFiles) -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let ours: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
    beneath(ours, project)
}

fn beneath(
    mut variables: BTreeMap<String, String>,
    project: &dyn ProjectFiles,
) -> BTreeMap<String, String> {
    for file in FILES {
        let text = project.text(Path::new(file)).unwrap_or_default();
        // Of one name the last counts.
        for (name, value) in dotenv_pairs(&text).into_iter().rev() {
            variables.entry(name).or_insert(value);
        }
    }
    variables
}

/// Roles that the variables name, the likeliest first.
pub(super) fn roles(
    variables: &BTreeMap<String, String>,
    named: &[String],
    guarded: &ConnectionInfo,
    sources: &dyn ConnectionSources,
) -> Vec<String> {
    let of_address = |name: &str| {
        let address = variables.get(name).filter(|address| address.contains("://"))?;
        Some(ConnectionInfo::parse(&bare(address), sources).ok()?.user().to_owned())
    };
    let mut found: Vec<String> = meant(variables, named, guarded, sources)
        .iter()
        .filter_map(|name| of_address(name))
        .collect();
    found.extend(variables.get("PGUSER").cloned());
    found.push(guarded.user().to_owned());
    let mut seen = BTreeSet::new();
    found.retain(|role| seen.insert(role.clone()));
    found
}

/// What leads the command to the copy.
pub(super) fn pointed(
    variables: &BTreeMap<String, String>,
    named: &[String],
    guarded: &ConnectionInfo,
    sources: &dyn ConnectionSources,
    copy: &Copy<'_>,
) -> Changes {
    let first = copy.roles.first().map_or(guarded.user(), String::as_str);
    let known = |role: Option<&str>| {
        let there = role.and_then(|role| copy.roles.iter().find(|own| *own == role));
        there.map_or(first, String::as_str).to_owned()
    };
    let Copy { port, password, database, .. } = *copy;
    let mut changes = Changes::new();
    for name in meant(variables, named, guarded, sources) {
        let address = variables.get(&name).map(String::as_str).unwrap_or_default();
        let own = ConnectionInfo::parse(&bare(address), sources).ok();
        let user = known(own.as_ref().filter(|_| !address.is_empty()).map(ConnectionInfo::user));
        let elsewhere = Elsewhere { host: "127.0.0.1", port, user: &user, password, database };
        let made = elsewhere.of(address).unwrap_or_else(|| elsewhere.plain(guarded.schema()));
        changes.insert(name, Some(made));
    }
    changes.extend(OF_PLACE.map(|name| (name.to_owned(), None)));
    // Passwords of other servers lie in files that are found without a variable; one that is not there holds none.
    let nowhere = "/nonexistent/pgkeep-rehearsal";
    let port = port.to_string();
    let user = known(variables.get("PGUSER").map(String::as_str));
    for (name, value) in [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", &user),
        ("PGPASSWORD", password),
        ("PGDATABASE", database),
        ("PGSSLMODE", "disable"),
        ("PGGSSENCMODE", "disable"),
        ("PGPASSFILE", nowhere),
        ("PGSERVICEFILE", nowhere),
    ] {
        changes.insert(name.to_owned(), Some(value.to_owned()));
    }
    changes
}

/// Names of variables that shall lead to the copy: those that always do, those that tools know where they are set, those
/// that were asked for, and all others that hold an address of the database.
fn meant(
    variables: &BTreeMap<String, String>,
    named: &[String],
    guarded: &ConnectionInfo,
    sources: &dyn ConnectionSources,
) -> Vec<String> {
    let mut names: Vec<String> = ALWAYS.map(str::to_owned).to_vec();
    names.extend(named.iter().cloned());
    let known = ADDRESSES.iter().filter(|name| variables.contains_key(**name));
    names.extend(known.map(|name| (*name).to_owned()));
    let others = variables
        .iter()
        .filter(|(_, value)| value.contains("://") && is_address_of(guarded, value, sources));
    names.extend(others.map(|(name, _)| name.clone()));
    let mut seen = BTreeSet::new();
    names.retain(|name| !OF_LIBPQ.contains(&name.as_str()) && !OF_PLACE.contains(&name.as_str()));
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::project::Project;
    use crate::guard::target::tests::Nothing;

    #[test]
    fn what_is_set_goes_before_a_projects_files_and_they_are_led_to_the_copy_too() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("prisma")).expect("a directory");
        let file = |name: &str, text: &str| std::fs::write(root.path().join(name), text);
        file(".env", "A=file\nnot-a-name=x\nnonsense\nOWN_URL='postgres://app:s@db/shop?schema=x'\nOWN_URL_2=postgres://app@db/other\n")
            .expect("a file");
        file("prisma/.env", "export B=\"deeper\"\nA=deepest\n").expect("a file");
        let set = [("C".to_owned(), "set".to_owned()), ("B".to_owned(), "set".to_owned())].into();
        let variables = beneath(set, &Project::at(root.path()));
        let told = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!((told("A"), told("B"), told("C")), (Some("file"), Some("set"), Some("set")));
        let guarded = ConnectionInfo::parse("postgres://keeper@db/shop", &Nothing);
        let guarded = guarded.expect("an address");
        assert_eq!(roles(&variables, &[], &guarded, &Nothing), ["app", "keeper"]);
        let there = ["app".to_owned()];
        let copy = Copy { port: 6000, password: "drawn", database: "shop", roles: &there };
        let changes = pointed(&variables, &[], &guarded, &Nothing, &copy);
        let made = "postgres://app:drawn@127.0.0.1:6000/shop?schema=x";
        assert_eq!(changes["OWN_URL"].as_deref(), Some(made));
        assert!(!changes.contains_key("OWN_URL_2"));
    }

    #[test]
    fn whatever_leads_to_the_database_leads_to_the_copy_and_the_rest_stays() {
        let guarded = ConnectionInfo::parse("postgres://keeper:p@db/shop?schema=pets", &Nothing);
        let guarded = guarded.expect("an address");
        let variables: BTreeMap<String, String> = [
            ("DATABASE_URL", "postgresql://app:secret@db:5432/shop?connection_limit=1"),
            ("OTHER_NAME", "postgres://gone@db/shop"),
            ("SHADOW_DATABASE_URL", "postgres://app@db/shadow"),
            ("PGKEEP_DATABASE_URL", "postgres://keeper:p@db/shop"),
            ("REDIS_URL", "redis://db/0"),
            ("PGHOSTADDR", "10.0.0.1"),
            ("PGUSER", "other"),
            ("PG_URL", "postgresql+psycopg2://app:secret@db/shop"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let named = ["MY_URL", "PG_NAMED"].map(str::to_owned);
        let wanted = roles(&variables, &named, &guarded, &Nothing);
        assert_eq!(wanted, ["app", "gone", "keeper", "other"]);
        let there = ["app", "keeper"].map(str::to_owned);
        let copy = Copy { port: 6000, password: "drawn", database: "shop", roles: &there };
        let changes = pointed(&variables, &named, &guarded, &Nothing, &copy);
        let told = |name: &str| changes.get(name).map(|value| value.as_deref().unwrap_or("-"));
        let address = |user: &str| format!("postgresql://{user}:drawn@127.0.0.1:6000/shop");
        let app = format!("{}?connection_limit=1", address("app"));
        assert_eq!(told("DATABASE_URL"), Some(app.as_str()));
        // What is not set names no schema by itself.
        let plain = format!("{}?schema=pets", address("app"));
        assert_eq!((told("DIRECT_URL"), told("MY_URL")), (Some(&*plain), Some(&*plain)));
        assert_eq!(told("PG_NAMED"), Some(&*plain));
        assert_eq!(told("PG_URL"), Some("postgresql+psycopg2://app:drawn@127.0.0.1:6000/shop"));
        // A role that is not there is stood in for.
        assert_eq!(told("OTHER_NAME"), Some("postgres://app:drawn@127.0.0.1:6000/shop"));
        assert_eq!(
            told("PGKEEP_DATABASE_URL"),
            Some("postgres://keeper:drawn@127.0.0.1:6000/shop")
        );
        assert_eq!((told("SHADOW_DATABASE_URL"), told("REDIS_URL")), (None, None));
        assert_eq!((told("PGHOSTADDR"), told("PGUSER")), (Some("-"), Some("app")));
        assert_eq!((told("PGHOST"), told("PGPASSWORD")), (Some("127.0.0.1"), Some("drawn")));
    }
}
