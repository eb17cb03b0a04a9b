//! What systemd passes to a service (`LoadCredential=`): secrets that stay root's on the disk.
//!
//! The rule: wherever a file at [`Environment::config_home`] is named for a secret, or looked for there without being
//! named, the credential of the file's name goes before it. So one configuration serves root's command line,
//! which reads the file, and the service, which may not. A blank credential stands in for a file that is not
//! there (systemd refuses to start a unit without one).
//!
//! Credentials are read when the configuration is: they are those of the service's start, whatever the files
//! hold since. systemd keeps them from every other user, in ways that the bits of their mode do not show (an access list
//! looks like a right of the group), so their modes are not judged.

use std::path::Path;

use super::settings::{ConnectionSource, KeySource, Settings};
use super::{Environment, files};
use crate::domain::connection::Secret;

/// Where systemd puts them.
const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Puts what systemd passed in the place of the files that are named.
pub(super) fn take(settings: &mut Settings) {
    let environment = settings.environment.clone();
    let Some(passed) = Passed::of(&environment, &settings.home) else { return };
    let keys = [&mut settings.encryption.writer_key, &mut settings.encryption.identity];
    let webhooks = settings.notify.webhooks.values_mut().map(|webhook| &mut webhook.url);
    for source in keys.into_iter().chain(&mut settings.daemon.token).chain(webhooks) {
        passed.for_key(source);
    }
    for cluster in settings.clusters.values_mut() {
        let ConnectionSource::File(path) = &cluster.connection else { continue };
        if let Some((text, origin)) = passed.instead_of(path).and_then(Credential::filled) {
            cluster.connection = ConnectionSource::Text(text, origin);
        }
    }
}

/// The directory of credentials, and where the files lie that they stand for.
struct Passed<'a> {
    directory: &'a Path,
    home: &'a Path,
}

/// One of them; without a text it stands for a file that is not there.
struct Credential {
    text: Option<Secret>,
    origin: String,
}

impl Credential {
    fn filled(self) -> Option<(Secret, String)> {
        Some((self.text?, self.origin))
    }
}

impl<'a> Passed<'a> {
    fn of(environment: &'a Environment, home: &'a Path) -> Option<Self> {
        let directory = environment.get(DIRECTORY).map(Path::new)?;
        Some(Self { directory, home })
    }

    /// The credential that stands for this file; none where systemd passed none.
    fn instead_of(&self, path: &Path) -> Option<Credential> {
        let name = path.file_name().filter(|_| path.parent() == Some(self.home))?;
        let (text, _) = files::read_with_mode(&self.directory.join(name)).ok()?;
        let blank = text.trim().is_empty();
        let text = (!blank).then(|| Secret::new(text.trim_end_matches('\n').to_owned()));
        Some(Credential { text, origin: format!("credential {}", name.to_string_lossy()) })
    }

    fn for_key(&self, source: &mut KeySource) {
        let Some(credential) = source.path().and_then(|path| self.instead_of(path)) else { return };
        match (credential, &*source) {
            (Credential { text: Some(text), origin }, _) => *source = KeySource::Text(text, origin),
            // The file may have come since, and this service may not read it.
            (Credential { text: None, origin }, KeySource::AtHome(_)) => {
                *source = KeySource::Absent(origin);
            }
            // One that is named must be there: reading it tells what is wrong.
            (Credential { text: None, .. }, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::{FILE_NAME, Selection, load};
    use super::*;

    /// A home with this configuration, and credentials of these names and texts; what is loaded then.
    fn loaded(configuration: &str, credentials: &[(&str, &str)]) -> (tempfile::TempDir, Settings) {
        let place = tempfile::tempdir().expect("a directory");
        let (home, passed) = (place.path().join("home"), place.path().join("passed"));
        for directory in [&home, &passed] {
            std::fs::create_dir(directory).expect("made");
        }
        std::fs::write(home.join(FILE_NAME), configuration).expect("written");
        for (name, text) in credentials {
            let path = passed.join(name);
            std::fs::write(&path, text).expect("written");
            // As systemd's access list looks.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o440)).expect("a mode");
        }
        let text = |path: &Path| path.to_str().expect("utf-8").to_owned();
        let pairs = [("PGKEEP_HOME", text(&home)), (DIRECTORY, text(&passed))];
        let settings = load(Environment::from_pairs(pairs), &Selection::default()).expect("loads");
        (place, settings.settings)
    }

    fn exposed(read: Result<Option<Secret>, super::super::ConfigError>) -> Option<String> {
        read.expect("reads").map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_credential_goes_before_the_file_of_its_name_at_home() {
        let configuration = "[encryption]\nidentity_file = \"identity.txt\"\n\
                             [clusters.main]\nurl_file = \"url\"\n\
                             [clusters.erp]\nurl_file = \"/elsewhere/url\"\n";
        let credentials =
            [("identity.txt", "kit\n"), ("writer.key", "key\n"), ("url", "postgres://u:p@h/d\n")];
        let (_place, settings) = loaded(configuration, &credentials);
        assert_eq!(exposed(settings.encryption.read_identity()), Some("kit".to_owned()));
        assert_eq!(exposed(settings.encryption.read_writer_key()), Some("key".to_owned()));
        assert_eq!(settings.encryption.identity.describe(), "credential identity.txt");
        assert!(settings.encryption.writer_key.next().is_none(), "no rotation begins from here");
        let of = |name: &str| {
            let name = name.parse().expect("a name");
            settings.connection_text(&name, &settings.clusters[&name])
        };
        assert_eq!(exposed(of("main")), Some("postgres://u:p@h/d".to_owned()));
        let error = of("erp").expect_err("a file elsewhere is that file");
        assert!(error.to_string().contains("/elsewhere/url"), "{error}");
    }

    #[test]
    fn a_blank_credential_is_a_file_that_is_not_there() {
        let configuration = "[clusters.main]\nurl_file = \"url\"\n";
        let blank = [("identity.txt", "\n"), ("writer.key", "\n"), ("url", "\n")];
        let (place, settings) = loaded(configuration, &blank);
        // It came after the service was started.
        std::fs::write(place.path().join("home/identity.txt"), "kit").expect("written");
        assert_eq!(exposed(settings.encryption.read_identity()), None);
        assert_eq!(exposed(settings.encryption.read_writer_key()), None);
        let (name, cluster) = settings.cluster().expect("a cluster");
        let error = settings.connection_text(name, cluster).expect_err("it is named");
        assert!(error.to_string().contains("/home/url"), "{error}");
        let named = "[encryption]\nwriter_key_file = \"writer.key\"\n";
        let (_place, settings) = loaded(named, &blank);
        assert!(settings.encryption.read_writer_key().is_err(), "one that is named must be there");
    }
}
