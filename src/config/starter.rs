//! The configuration that `init` writes where there is none.

use std::fmt::Write as _;

use super::settings::{ChecksumPolicy, ServiceSettings};

/// What a starter configuration says. It holds no secret, so it may be read by anyone.
#[derive(Debug, Clone)]
pub struct Starter {
    /// The repository's URL.
    pub repository: String,
    /// How its service is spoken to, where it lies in one.
    pub service: Option<ServiceSettings>,
    /// The recipients.
    pub recipients: Vec<String>,
    /// The signers this host trusts.
    pub trusted_signers: Vec<String>,
    /// Whether the repository is without encryption.
    pub insecure_plaintext: bool,
    /// The cluster's name.
    pub cluster: String,
}

impl Starter {
    /// The text of the file.
    pub fn render(&self) -> String {
        let list = |items: &[String]| {
            let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
            format!("[{}]", quoted.join(", "))
        };
        let service = self.service.as_ref().map(service_lines).unwrap_or_default();
        let mut text = format!(
            "# pgkeep's configuration. `pgkeep config show --defaults` explains every key.\n\n\
             [repository]\nurl = {}\n{service}\n[encryption]\n",
            quote(&self.repository)
        );
        let mut line = |text_line: String| {
            writeln!(text, "{text_line}").expect("writing to a string");
        };
        if self.insecure_plaintext {
            line(
                "insecure_plaintext = true  # what is stored here can be read by anyone".to_owned(),
            );
        } else {
            line(format!("recipients = {}", list(&self.recipients)));
        }
        line(format!("trusted_signers = {}", list(&self.trusted_signers)));
        line(String::new());
        line("# Where the server is; without it, PGKEEP_DATABASE_URL, DIRECT_URL, DATABASE_URL or PG*.".to_owned());
        line(format!("# [clusters.{}]", self.cluster));
        line("# url = \"postgres://pgkeep@localhost/postgres\"".to_owned());
        line("# databases = [\"app\"]".to_owned());
        text
    }
}

/// What differs from the defaults; patience is left to them.
fn service_lines(service: &ServiceSettings) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        writeln!(text, "{key} = {value}").expect("writing to a string");
    };
    if let Some(endpoint) = &service.endpoint {
        line("endpoint", quote(endpoint));
    }
    if let Some(region) = &service.region {
        line("region", quote(region));
    }
    if let Some(path_style) = service.path_style {
        line("path_style", path_style.to_string());
    }
    match service.checksums {
        Some(ChecksumPolicy::WhenSupported) => line("checksums", quote("when_supported")),
        Some(ChecksumPolicy::WhenRequired) => line("checksums", quote("when_required")),
        None => {}
    }
    text
}

/// A TOML string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
