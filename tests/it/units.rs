//! The units, the package and the image: what can be said of them without a booted system. `make test-system` boots one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use yaml_rust2::{Yaml, YamlLoader};

use super::support::{Keeper, Server};

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(checkout(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const SERVICES: [&str; 2] = ["pgkeep.service", "pgkeep-snapshot@.service"];

/// The units as they would be installed, but with the program that was just built.
fn installed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for unit in [SERVICES[0], SERVICES[1], "pgkeep-snapshot@.timer"] {
        let unit_text = text(&format!("systemd/{unit}"));
        let unit_text = unit_text.replace("/usr/bin/pgkeep", env!("CARGO_BIN_EXE_pgkeep"));
        fs::write(directory.path().join(unit), unit_text).expect("written");
    }
    directory
}

fn analyze(arguments: &[&str], units: &[PathBuf]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).args(units).env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0");
    command.output().expect("systemd-analyze is installed (tests/setup test)")
}

/// What it says; nothing where all is well.
fn complaints(arguments: &[&str], units: &[PathBuf]) -> String {
    let told = analyze(arguments, units);
    let words = String::from_utf8_lossy(&told.stderr).into_owned();
    if told.status.success() { words } else { format!("{words}({})", told.status) }
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let directory = installed();
    let units: Vec<PathBuf> = SERVICES
        .iter()
        .chain(&["pgkeep-snapshot@.timer"])
        .map(|unit| directory.path().join(unit))
        .collect();
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    assert_eq!(complaints(&verify, &units), "");
    // And it would see one.
    let unit = directory.path().join("pgkeep.service");
    let wrong =
        fs::read_to_string(&unit).expect("there").replace("ProtectSystem=", "ProtectSytem=");
    fs::write(&unit, wrong).expect("written");
    let said = complaints(&verify, &[unit]);
    assert!(said.contains("ProtectSytem"), "{said}");
}

#[test]
fn the_services_are_exposed_to_two_of_ten_at_most() {
    let directory = installed();
    for unit in SERVICES {
        let threshold = ["security", "--offline=true", "--no-pager", "--threshold=20"];
        let told = analyze(&threshold, &[directory.path().join(unit)]);
        let words = String::from_utf8_lossy(&told.stdout).into_owned();
        let last = words.lines().last().unwrap_or_default();
        assert!(told.status.success(), "{unit}: {last}");
        assert!(last.contains("Overall exposure level"), "{unit}: {last}");
    }
}

/// The settings of a section of a unit, without comments, in their order.
fn settings(unit: &str) -> Vec<String> {
    let unit_text = text(&format!("systemd/{unit}"));
    let lines = unit_text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn both_services_run_in_the_same_sandbox() {
    let own = ["LoadCredential=token:", "SetCredential=token:", "RuntimeDirectory"];
    let sandbox = |unit: &str| {
        let all = settings(unit);
        let from = all.iter().position(|line| line == "User=pgkeep").expect("a user");
        let to = all.iter().position(|line| line == "[Install]").unwrap_or(all.len());
        let lines =
            all[from..to].iter().filter(|line| !own.iter().any(|own| line.starts_with(own)));
        lines.cloned().collect::<Vec<_>>()
    };
    assert_eq!(sandbox(SERVICES[0]), sandbox(SERVICES[1]));
}

/// tests/bench/idle measures what a daemon holds with it, by the unit's own line.
#[test]
fn unit_and_image_give_memory_back() {
    let of = |text: &str, word: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word).map(str::to_owned));
        lines.filter(|value| value.starts_with("MALLOC_")).collect::<Vec<_>>()
    };
    let unit = of(&text("systemd/pgkeep.service"), "Environment=");
    assert_eq!(unit.len(), 1);
    assert_eq!(of(&text("docs/docker/Dockerfile"), "ENV "), unit);
}

#[test]
fn every_credential_has_a_stand_in() {
    for unit in SERVICES {
        let all = settings(unit);
        let of = |key: &str| {
            let ids = all.iter().filter_map(|line| line.strip_prefix(key)?.split(':').next());
            ids.map(str::to_owned).collect::<Vec<_>>()
        };
        let loaded = of("LoadCredential=");
        assert!(loaded.contains(&"identity.txt".to_owned()), "{loaded:?}");
        // Without one systemd does not start a unit whose file is not there.
        assert_eq!(loaded, of("SetCredential="), "{unit}");
    }
}

/// `init` on a host where the package put a configuration: what it made is told there, and a snapshot goes.
#[test]
fn init_adds_to_the_packages_configuration_what_it_made() {
    let server = Server::older();
    let database = server.database("packaged");
    let keeper = Keeper::new(&database.url());
    let file = keeper.home().join("pgkeep.toml");
    fs::write(&file, text("packaging/pgkeep.toml")).expect("written");
    let made = keeper.pgkeep(["--json", "init"]).run().expect_code(0);
    let recipient = made.json()["recipients"][0].as_str().expect("one").to_owned();
    let after = fs::read_to_string(&file).expect("there");
    let added = format!("[encryption]\nrecipients = [\"{recipient}\"]\ntrusted_signers = [\"RW");
    assert!(after.contains(&added), "{after}");
    for line in text("packaging/pgkeep.toml").lines() {
        assert!(after.contains(line), "this line is gone: {line}");
    }
    keeper.pgkeep(["snapshot"]).run().expect_code(0);
    let again = keeper.pgkeep(["init"]).run().expect_code(0);
    assert!(!again.stdout.contains("wrote"), "{}", again.stdout);
    assert_eq!(fs::read_to_string(&file).expect("there"), after, "run again it changes nothing");
}

/// The package's file with its examples switched on is accepted, so nobody begins from one that is refused.
#[test]
fn the_packages_configuration_is_valid_with_its_examples() {
    let server = Server::older();
    let keeper = Keeper::new(&server.database("examples").url());
    let shipped = text("packaging/pgkeep.toml");
    let lines = shipped.lines().map(|line| {
        let example = line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']));
        example.unwrap_or(line)
    });
    let whole = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(whole.contains("\nsnapshot = "), "{whole}");
    // The file of the address, where this user's files are.
    let file = keeper.home().join("url");
    fs::write(&file, "postgres://pgkeep:secret@localhost/postgres\n").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert!(whole.contains("\"/etc/pgkeep/url\""), "{whole}");
    let whole = whole.replace("/etc/pgkeep/url", &file.display().to_string());
    fs::write(keeper.home().join("pgkeep.toml"), whole).expect("written");
    keeper.pgkeep(["config", "validate"]).without("PGKEEP_DATABASE_URL").run().expect_code(0);
}

#[test]
fn package_and_image_are_of_this_version() {
    let manifest = text("Cargo.toml");
    let value = |key: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        line.and_then(|rest| rest.strip_suffix('"')).expect("set").to_owned()
    };
    let changelog = text("packaging/debian/changelog");
    let first = changelog.lines().next().unwrap_or_default();
    assert!(first.starts_with(&format!("pgkeep ({}-1) ", value("version"))), "{first}");
    let dockerfile = text("docs/docker/Dockerfile");
    let builder = format!("FROM rust:{}-${{SUITE}} AS build", value("rust-version"));
    assert!(dockerfile.contains(&builder), "the image is built with another Rust");
    let suite = dockerfile.lines().find_map(|line| line.strip_prefix("ARG SUITE="));
    let tried = text("tests/system/common.sh");
    let tried = tried.lines().find_map(|line| line.strip_prefix("suite="));
    assert_eq!(suite, tried, "the tree that is tried is of another suite");
}

#[test]
fn everything_that_the_package_takes_is_there() {
    let manifest: toml::Table = text("Cargo.toml").parse().expect("a manifest");
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets = deb["assets"].as_array().expect("a list");
    let sources: Vec<&str> =
        assets.iter().map(|asset| asset[0].as_str().expect("a path")).collect();
    for source in &sources {
        assert!(source.starts_with("target/") || checkout(source).is_file(), "{source} is missing");
    }
    for unit in fs::read_dir(checkout("systemd")).expect("units").flatten() {
        let unit = format!("systemd/{}", unit.file_name().to_string_lossy());
        assert!(sources.contains(&unit.as_str()), "{unit} is in no package");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let path = checkout("packaging/debian").join(script);
        let checked = Command::new("sh").arg("-n").arg(&path).status().expect("a shell");
        assert!(checked.success(), "{script}");
    }
}

fn composition() -> Yaml {
    let mut documents = YamlLoader::load_from_str(&text("docs/docker/compose.yml")).expect("YAML");
    documents.swap_remove(0)
}

/// The variables of a service, `${…}` filled in.
fn variables(service: &Yaml) -> Vec<(String, String)> {
    let environment = service["environment"].as_hash().expect("an environment");
    let pair = |(name, value): (&Yaml, &Yaml)| {
        // `0 2 * * *` is a string without quotes, and `true` would be none.
        let value = value.as_str().unwrap_or_else(|| panic!("{name:?} is no string"));
        let value = value.replace("${POSTGRES_PASSWORD:?}", "secret");
        let value = value.replace("${PGKEEP_TOKEN:?}", &"t".repeat(64));
        assert!(!value.contains('$'), "{value} is of the environment");
        (name.as_str().expect("a name").to_owned(), value)
    };
    environment.iter().map(pair).collect()
}

fn words(list: &Yaml) -> Vec<&str> {
    list.as_vec().into_iter().flatten().map(|one| one.as_str().expect("a word")).collect()
}

fn keys(map: &Yaml) -> Vec<&str> {
    map.as_hash().into_iter().flatten().map(|(key, _)| key.as_str().expect("a name")).collect()
}

#[test]
fn the_composition_names_what_is_there() {
    let compose = composition();
    let services = compose["services"].as_hash().expect("services");
    assert_eq!(keys(&compose["services"]), ["database", "pgkeep", "app"]);
    let dockerfile = text("docs/docker/Dockerfile");
    let mut used = Vec::new();
    for (name, service) in services {
        for (other, how) in service["depends_on"].as_hash().into_iter().flatten() {
            let there = services.get(other).unwrap_or_else(|| panic!("no {other:?}"));
            assert_eq!(how["condition"].as_str(), Some("service_healthy"));
            // Its own way to tell, or its image's.
            let tells = there["healthcheck"]["test"].is_array()
                || other.as_str() == Some("pgkeep") && dockerfile.contains("\nHEALTHCHECK ");
            assert!(tells, "{other:?} cannot be told to be healthy, and {name:?} waits for it");
        }
        for volume in words(&service["volumes"]) {
            let source = volume.split(':').next().expect("one part");
            match source.strip_prefix("./").or(source.strip_prefix("../").map(|_| source)) {
                // The user's own.
                Some("app") => {}
                Some(path) => assert!(checkout("docs/docker").join(path).is_file(), "{volume}"),
                None => used.push(source),
            }
        }
    }
    used.sort_unstable();
    let mut named = keys(&compose["volumes"]);
    named.sort_unstable();
    assert_eq!(used, named, "each volume is named once and used once");

    let pgkeep = &compose["services"]["pgkeep"];
    let place = checkout("docs/docker").join(pgkeep["build"]["context"].as_str().expect("a place"));
    let built_from = place.join(pgkeep["build"]["dockerfile"].as_str().expect("a file"));
    assert!(built_from.is_file() && place.join("Cargo.toml").is_file());
    // It is read-only but for these, which are the image's.
    let targets: Vec<_> = words(&pgkeep["volumes"])
        .iter()
        .map(|volume| format!("{:?}", volume.split(':').nth(1).expect("a target")))
        .collect();
    let volume = format!("\nVOLUME [{}]\n", targets.join(", "));
    assert!(
        pgkeep["read_only"].as_bool() == Some(true) && dockerfile.contains(&volume),
        "{volume}"
    );
    assert!(dockerfile.contains("\nEXPOSE 7878\n"));
    assert_eq!(words(&pgkeep["ports"]), ["127.0.0.1:7878:7878"]);

    // What the app is told is what the hook reads, and what leads to pgkeep.
    let app = variables(&compose["services"]["app"]);
    let hook = text("docs/guides/hook.mjs");
    for (name, value) in &app {
        assert!(!name.starts_with("PGKEEP") || hook.contains(&format!("process.env.{name}")));
        assert!(name != "PGKEEP_URL" || value == "http://pgkeep:7878", "{value}");
    }
    let given = |name: &str| app.iter().find(|(own, _)| own == name).map(|(_, value)| value);
    let of_pgkeep = variables(pgkeep);
    let taken = |name: &str| of_pgkeep.iter().find(|(own, _)| own == name).map(|(_, value)| value);
    assert_eq!(given("PGKEEP_TOKEN"), taken("PGKEEP__DAEMON__TOKEN"));
    assert_eq!(given("DATABASE_URL"), taken("PGKEEP_DATABASE_URL"), "one database is meant");
    let database = variables(&compose["services"]["database"]);
    let made = database.iter().find(|(name, _)| name == "POSTGRES_DB").map(|(_, name)| name);
    let place = format!("@database/{}", made.expect("a database"));
    assert!(taken("PGKEEP_DATABASE_URL").is_some_and(|url| url.ends_with(&place)), "{place}");
    let mounted = |target: &str| {
        let volumes = words(&compose["services"]["app"]["volumes"]);
        volumes.iter().any(|volume| volume.split(':').nth(1) == Some(target))
    };
    let entrypoint = words(&compose["services"]["app"]["entrypoint"])[1];
    assert!(mounted(entrypoint), "{entrypoint}");
    let script = text("docs/docker/app-entrypoint.sh");
    let hook = "/usr/local/lib/pgkeep/hook.mjs";
    assert!(script.contains(&format!("${{PGKEEP_HOOK:-{hook}}}")) && mounted(hook));
}

#[test]
fn the_composition_configures_pgkeep_as_pgkeep_understands_it() {
    let server = Server::older();
    let mut keeper = Keeper::new(&server.database("composed").url());
    let variables = variables(&composition()["services"]["pgkeep"]);
    assert!(variables.len() > 6, "{variables:?}");
    for (name, value) in &variables {
        keeper.set(name, value);
    }
    keeper.pgkeep(["config", "validate"]).run().expect_code(0);
    let shown = keeper.pgkeep(["config", "show"]).run().expect_code(0).stdout;
    for part in ["0 2 * * *", "0 5 * * *", "30 6 * * *", "0.0.0.0:7878", "@database/app"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("secret") && !shown.contains("tttt"), "{shown}");
}

#[test]
fn the_apps_entrypoint_migrates_only_after_a_snapshot() {
    let place = tempfile::tempdir().expect("a directory");
    let program = |name: &str, body: &str| {
        let path = place.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    program("npx", "echo migrated");
    let run = |hook: &str| {
        program("node", hook);
        let told = Command::new("sh")
            .arg(checkout("docs/docker/app-entrypoint.sh"))
            .args(["echo", "up"])
            .env("PATH", format!("{}:/usr/bin:/bin", place.path().display()))
            .output()
            .expect("a shell");
        (told.status.code(), String::from_utf8_lossy(&told.stdout).into_owned())
    };
    assert_eq!(run("exit 6"), (Some(6), String::new()));
    assert_eq!(run("echo \"$2 $3\""), (Some(0), "main app\nmigrated\nup\n".to_owned()));
}
