//! Whether a command works on the database that is saved, as far as its words and the environment say.

use crate::domain::connection::{ConnectionInfo, ConnectionSources, Endpoint, HostName};

/// What the addresses of a command say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// It names none.
    Unsaid,
    /// The same database; the schema that the address names.
    Same(Option<String>),
    /// It cannot be told.
    Uncertain,
    /// Another one: where that is.
    Another(String),
}

/// Holds the addresses of a command against the guarded database: it is the same where any of them is.
pub(super) fn meant(
    guarded: &ConnectionInfo,
    addresses: &[String],
    sources: &dyn ConnectionSources,
) -> Meant {
    let mut found = Meant::Unsaid;
    for address in addresses {
        match parse(address, sources) {
            Some(own) if is_same(guarded, &own) => {
                return Meant::Same(own.schema().map(str::to_owned));
            }
            // A pooler has a name and a port of its own.
            Some(own) if !(own.is_pooled() && own.database() == guarded.database()) => {
                found = Meant::Another(place(&own));
            }
            _ if found == Meant::Unsaid => found = Meant::Uncertain,
            _ => {}
        }
    }
    found
}

/// `host:port/database`.
pub(super) fn place(connection: &ConnectionInfo) -> String {
    let hosts: Vec<String> = connection.endpoints().iter().map(ToString::to_string).collect();
    format!("{}/{}", hosts.join(","), connection.database())
}

/// Whether a text is an address of that very database.
pub(super) fn is_address_of(
    guarded: &ConnectionInfo,
    text: &str,
    sources: &dyn ConnectionSources,
) -> bool {
    parse(text, sources).is_some_and(|own| is_same(guarded, &own))
}

/// Without what only drivers know: `jdbc:` before it, and their own names in the scheme (`postgresql+psycopg2`).
pub(super) fn bare(address: &str) -> String {
    let plain = address.strip_prefix("jdbc:").unwrap_or(address);
    let parts =
        plain.split_once("://").and_then(|(scheme, rest)| Some((scheme.split_once('+')?.0, rest)));
    match parts {
        Some((scheme @ ("postgres" | "postgresql"), rest)) => [scheme, "://", rest].concat(),
        _ => plain.to_owned(),
    }
}

/// Other programs know other parameters; those do not matter here.
fn parse(address: &str, sources: &dyn ConnectionSources) -> Option<ConnectionInfo> {
    let bare = bare(address);
    ConnectionInfo::parse(&bare, sources).ok().or_else(|| {
        let (plain, _) = bare.split_once('?')?;
        ConnectionInfo::parse(plain, sources).ok()
    })
}

fn is_same(one: &ConnectionInfo, other: &ConnectionInfo) -> bool {
    let any = |endpoint: &Endpoint| {
        other.endpoints().iter().any(|own| host(endpoint) == host(own) && endpoint.port == own.port)
    };
    one.database() == other.database() && one.endpoints().iter().any(any)
}

/// A socket is this host's, as the loopback is.
fn host(endpoint: &Endpoint) -> String {
    const HERE: &str = "localhost";
    let name = match (&endpoint.host, endpoint.address) {
        (_, Some(address)) => address.to_string(),
        (HostName::Network(name), None) => name.trim_end_matches('.').to_ascii_lowercase(),
        (HostName::Socket(_), None) => return HERE.to_owned(),
    };
    let loops = name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if loops { HERE.to_owned() } else { name }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A world without variables and files.
    pub(in crate::guard) struct Nothing;

    impl ConnectionSources for Nothing {
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
        fn file(&self, _: &std::path::Path) -> Option<crate::domain::connection::SourceFile> {
            None
        }
        fn exists(&self, _: &std::path::Path) -> bool {
            false
        }
        fn home(&self) -> Option<std::path::PathBuf> {
            None
        }
        fn user_name(&self) -> Option<String> {
            Some("me".to_owned())
        }
    }

    fn told(guarded: &str, addresses: &[&str]) -> Meant {
        let guarded = ConnectionInfo::parse(guarded, &Nothing).expect("an address");
        let addresses: Vec<String> = addresses.iter().map(|&one| one.to_owned()).collect();
        meant(&guarded, &addresses, &Nothing)
    }

    #[test]
    fn another_host_port_or_database_is_another_and_the_ways_to_this_host_are_one() {
        let shop = "postgres://u:p@localhost:5432/shop";
        for same in [
            "postgresql://other@127.0.0.1/shop",
            "postgres://u@[::1]:5432/shop",
            "postgres://u@LOCALHOST/shop?sslmode=disable&unheard_of=1",
            "jdbc:postgresql://localhost:5432/shop?currentSchema=x",
            "postgresql:///shop?host=/var/run/postgresql",
            "host=127.0.0.1 dbname=shop user=u",
        ] {
            assert_eq!(told(shop, &[same]), Meant::Same(None), "{same}");
        }
        let schema = Meant::Same(Some("pets".to_owned()));
        assert_eq!(told(shop, &["postgres://u@localhost/shop?schema=pets"]), schema);
        for (other, place) in [
            ("postgres://u:secret@db:5432/shop", "db:5432/shop"),
            ("postgres://u@localhost:5433/shop", "localhost:5433/shop"),
            ("postgres://u@localhost/live", "localhost:5432/live"),
        ] {
            assert_eq!(told(shop, &[other]), Meant::Another(place.to_owned()));
        }
        assert_eq!(told(shop, &[]), Meant::Unsaid);
        assert_eq!(told(shop, &["prisma+postgres://accelerate"]), Meant::Uncertain);
        // A direct address and a pooler's stand side by side.
        let pooled = "postgres://u@pooler:6432/shop?pgbouncer=true";
        assert_eq!(told(shop, &[pooled, "postgres://u@localhost/shop"]), Meant::Same(None));
        assert_eq!(told(shop, &["postgres://u@pooler:6432/shop", shop]), Meant::Same(None));
        assert_eq!(told(shop, &[pooled]), Meant::Uncertain);
    }
}
