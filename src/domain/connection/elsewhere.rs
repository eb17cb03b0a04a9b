//! An address made to lead to another server, in the form in which it was written and with what else it says.

use std::fmt::Write as _;

use super::{keyword, uri};

/// Where addresses shall lead.
#[derive(Clone, Copy)]
pub struct Elsewhere<'a> {
    /// A name or an address on the network.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The role.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// The database.
    pub database: &'a str,
}

/// What says where a server is, whom it knows, and how it is trusted; the beginnings of words.
const PLACE: [&str; 21] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "passfile",
    "dbname",
    "service",
    "servicefile",
    "ssl",
    "channel_binding",
    "channelBinding",
    "gss",
    "krbsrvname",
    "requirepeer",
    "require_auth",
    "scram_",
    "target_session_attrs",
    "targetServerType",
    "load_balance_hosts",
    "loadBalanceHosts",
];

impl Elsewhere<'_> {
    /// The same address, of a server elsewhere; none for what is no address of PostgreSQL.
    pub fn of(&self, text: &str) -> Option<String> {
        let text = text.trim();
        if let Some((scheme, rest)) = split(text) {
            let parameters = uri::parts(rest).ok()?.parameters;
            let kept = parameters.into_iter().filter(|(name, _)| !is_place(name));
            return Some(self.uri(scheme, kept.collect()));
        }
        let pairs = keyword::pairs(text).ok()?;
        let is_address = pairs.iter().any(|(name, _)| name == "dbname" || name == "host");
        is_address.then(|| self.keywords(pairs))
    }

    /// An address that says no more.
    pub fn plain(&self, schema: Option<&str>) -> String {
        let schema = schema.map(|schema| ("schema".to_owned(), schema.to_owned()));
        self.uri("postgresql://", schema.into_iter().collect())
    }

    fn uri(&self, scheme: &str, mut parameters: Vec<(String, String)>) -> String {
        let Self { host, port, .. } = *self;
        let [user, password, database] = [self.user, self.password, self.database].map(encoded);
        let mut address = if scheme.starts_with("jdbc:") {
            // It knows no user before the host.
            let own = [("user", self.user), ("password", self.password)];
            let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
            parameters.splice(0..0, own);
            format!("{scheme}{host}:{port}/{database}")
        } else {
            format!("{scheme}{user}:{password}@{host}:{port}/{database}")
        };
        for (at, (name, value)) in parameters.iter().enumerate() {
            let sign = if at == 0 { '?' } else { '&' };
            let (name, value) = (encoded(name), encoded(value));
            write!(address, "{sign}{name}={value}").expect("a string takes it");
        }
        address
    }

    fn keywords(&self, pairs: Vec<(String, String)>) -> String {
        let port = self.port.to_string();
        let own = [
            ("host", self.host),
            ("port", &port),
            ("user", self.user),
            ("password", self.password),
            ("dbname", self.database),
            ("sslmode", "disable"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let kept = pairs.into_iter().filter(|(name, _)| !is_place(name));
        let pair = |(name, value): (String, String)| {
            format!("{name}='{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
        };
        own.into_iter().chain(kept).map(pair).collect::<Vec<_>>().join(" ")
    }
}

/// `postgres://`, `postgresql://`, that of a driver (`postgresql+psycopg2://`), `jdbc:postgresql://`; and the rest.
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.find("://")? + "://".len();
    let (scheme, rest) = text.split_at(at);
    let bare = scheme.strip_prefix("jdbc:").unwrap_or(scheme).trim_end_matches("://");
    let (name, driver) = bare.split_once('+').unwrap_or((bare, ""));
    let plain = driver.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (matches!(name, "postgres" | "postgresql") && plain).then_some((scheme, rest))
}

fn is_place(name: &str) -> bool {
    PLACE.iter().any(|word| name.starts_with(word))
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes it");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_elsewhere_in_its_own_form_and_keeps_what_else_it_says() {
        let elsewhere = Elsewhere {
            host: "127.0.0.1",
            port: 6000,
            user: "app er",
            password: "drawn",
            database: "shop",
        };
        for (given, made) in [
            (
                "postgresql://icmsdev:dev@123@db:5432/icms?schema=public&sslmode=require&connection_limit=5",
                "postgresql://app%20er:drawn@127.0.0.1:6000/shop?schema=public&connection_limit=5",
            ),
            ("postgres:///shop?host=/run", "postgres://app%20er:drawn@127.0.0.1:6000/shop"),
            (
                "postgresql+psycopg2://u@h/x",
                "postgresql+psycopg2://app%20er:drawn@127.0.0.1:6000/shop",
            ),
            (
                "jdbc:postgresql://h/x?user=u&password=p&currentSchema=a",
                "jdbc:postgresql://127.0.0.1:6000/shop?user=app%20er&password=drawn&currentSchema=a",
            ),
            (
                "host=db dbname=shop password='s p' options='-c x=\\'y\\''",
                "host='127.0.0.1' port='6000' user='app er' password='drawn' dbname='shop' \
                 sslmode='disable' options='-c x=\\'y\\''",
            ),
        ] {
            assert_eq!(elsewhere.of(given).as_deref(), Some(made), "{given}");
        }
        for other in ["mysql://u@h/x", "prisma+postgres://h/?api_key=x", "true", "", "a=b"] {
            assert_eq!(elsewhere.of(other), None, "{other}");
        }
        let plain = "postgresql://app%20er:drawn@127.0.0.1:6000/shop";
        assert_eq!(elsewhere.plain(None), plain);
        assert_eq!(elsewhere.plain(Some("pets")), format!("{plain}?schema=pets"));
    }
}
