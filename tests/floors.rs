//! The floors are tested, not promised: reads `src` and fails on an import that goes up or sideways, a vendor
//! that is named outside its place, printing outside the command line, and what STYLE forbids in words.
//!
//! It reads tokens, not syntax trees: enough for `use` lines and paths, and no dependency of its own.

#[path = "floors/format.rs"]
mod format;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate root and its floor; imports go from a higher number to a lower one.
const FLOORS: &[(&str, u8)] = &[
    ("cli", 7),
    ("daemon", 6),
    ("wiring", 5),
    ("guard", 4),
    ("ops", 3),
    ("repo", 2),
    ("scratch", 2),
    ("proof", 2),
    ("store", 1),
    ("codec", 1),
    ("postgres", 1),
    ("config", 1),
    ("notify", 1),
    ("domain", 0),
    ("failpoint", 0),
];

/// Who may name which crate: beginnings of paths below `src`.
const VENDORS: &[(&str, &[&str])] = &[
    ("age", &["codec/encrypt"]),
    ("zstd", &["codec/compress", "codec/unpack"]),
    ("flate2", &["codec/digest", "codec/unpack"]),
    ("sha2", &["codec/digest"]),
    ("fastcdc", &["codec/cut"]),
    ("blake3", &["codec/hash"]),
    ("ed25519_dalek", &["codec/sign"]),
    ("blake2", &["codec/sign"]),
    ("base64", &["codec/"]),
    ("getrandom", &["codec/", "postgres/session"]),
    // Whoever holds a session speaks SQL through it; making one is `postgres`'s alone.
    ("tokio_postgres", &["postgres/", "scratch/", "proof/"]),
    ("tokio_postgres_rustls", &["postgres/"]),
    ("rustls", &["postgres/", "notify/tls"]),
    ("rustls_native_certs", &["postgres/", "notify/tls"]),
    ("rustls_pki_types", &["postgres/"]),
    ("aws_config", &["store/s3/"]),
    ("aws_sdk_s3", &["store/s3/"]),
    ("aws_smithy_http_client", &["store/s3/"]),
    ("croner", &["domain/schedule"]),
    ("tokio_cron_scheduler", &["daemon/trigger"]),
    ("axum", &["daemon/http/"]),
    ("hyper", &["daemon/http/"]),
    ("hyper_util", &["daemon/http/"]),
    ("maud", &["daemon/http/"]),
    ("prometheus_client", &["daemon/http/"]),
    ("subtle", &["daemon/http/"]),
    ("reqwest", &["notify/"]),
    ("sd_notify", &["daemon/service"]),
    ("toml", &["config/"]),
    ("strsim", &["config/", "domain/connection", "domain/schedule"]),
    ("clap", &["cli/"]),
    ("clap_complete", &["cli/"]),
    ("clap_mangen", &["cli/"]),
    ("indicatif", &["cli/"]),
    // The tests of `notify` read what the log would hold.
    ("tracing_subscriber", &["cli/", "notify/tests"]),
];

/// Conductors do not call each other; these modules of `ops` are no conductors.
const SHARED_BY_CONDUCTORS: &[&str] = &["claim", "copy", "run"];

/// The tests of `ops` that tell a story of several conductors.
const STORIES: &str = "tests";

/// A file can be read in a sitting.
const LINES_MAX: usize = 800;

/// One token with its line: a word, or a sign (`::` is one).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// The tokens of a source without comments, strings and characters.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let start = at;
        let rest = &source[at..];
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        at += if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = string(rest) {
            length
        } else if rest.starts_with('\'') {
            character(rest)
        } else if word(bytes[at]) {
            let length = rest.bytes().take_while(|&byte| word(byte)).count();
            found.push(Token { text: &rest[..length], line });
            length
        } else if rest.starts_with("::") {
            found.push(Token { text: "::", line });
            2
        } else {
            if !bytes[at].is_ascii_whitespace() {
                found.push(Token { text: &rest[..1], line });
            }
            1
        };
        line += source[start..at].matches('\n').count();
    }
    found
}

/// Length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a string literal of any kind, if one begins here.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix).unwrap_or_default();
        after.starts_with('"') || (prefix.ends_with('r') && after.starts_with('#'))
    })?;
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.bytes().take_while(|&byte| byte == b'#').count();
        // `r#type` is a word, not a string.
        let body = after[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |found| found + end.len());
        return Some(prefix.len() + hashes + 1 + length);
    }
    let mut escaped = false;
    for (at, byte) in after.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(prefix.len() + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// Length of a character literal, or of the quote alone before a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => {
            let close = rest.char_indices().skip(3).find(|&(_, c)| c == '\'');
            close.map_or(rest.len(), |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// A file below `src`.
struct Source {
    /// Such as `repo/commit.rs`.
    path: String,
    text: String,
    /// Whether it, or a module around it, is declared under `#[cfg(test)]`.
    is_test: bool,
}

impl Source {
    fn modules(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if path == "lib" || path == "main" { Vec::new() } else { path.split('/').collect() }
    }

    /// The module of the crate root that the file belongs to.
    fn floor_module(&self) -> Option<&str> {
        self.modules().first().copied()
    }
}

/// The first name of every path that hangs below `crate::` (or a chain of `super::` that reaches as far),
/// each with the rest of its path.
fn crate_paths<'a>(tokens: &'a [Token<'a>], depth: usize) -> Vec<(Vec<&'a str>, usize)> {
    let mut found = Vec::new();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    for at in 0..tokens.len() {
        let begins = at == 0 || text(at - 1) != "::";
        let base = match text(at) {
            "crate" if begins && text(at + 1) == "::" => at + 2,
            "super" if begins => {
                let mut end = at;
                let mut steps = 0;
                while text(end) == "super" && text(end + 1) == "::" {
                    end += 2;
                    steps += 1;
                }
                if steps < depth || steps == 0 {
                    continue;
                }
                end
            }
            _ => continue,
        };
        expand(tokens, base, &[], &mut found);
    }
    found
}

/// Reads a path or a group of paths; the index behind it.
fn expand<'a>(
    tokens: &'a [Token<'a>],
    mut at: usize,
    before: &[&'a str],
    found: &mut Vec<(Vec<&'a str>, usize)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut path = before.to_vec();
    loop {
        if text(at) == "{" {
            at += 1;
            while !matches!(text(at), "}" | "") {
                at = expand(tokens, at, &path, found);
                while !matches!(text(at), "," | "}" | "") {
                    at += 1;
                }
                at += usize::from(text(at) == ",");
            }
            return at + 1;
        }
        let Some(token) = tokens.get(at) else { return at };
        path.push(token.text);
        at += 1;
        if text(at) != "::" {
            found.push((path, token.line));
            return at;
        }
        at += 1;
    }
}

/// Every `#[cfg(test)] mod name`: where it stands, its name, and whether its body follows.
fn test_modules<'a>(tokens: &'a [Token<'a>]) -> impl Iterator<Item = (usize, &'a str, bool)> {
    tokens.windows(8).enumerate().filter_map(|(at, window)| {
        let declared = window[..6].iter().map(|token| token.text);
        let is_test = declared.eq(["cfg", "(", "test", ")", "]", "mod"]);
        is_test.then(|| (at, window[6].text, window[7].text == "{"))
    })
}

/// Marks the files of modules that a `#[cfg(test)] mod name;` declares, and all below them.
fn mark_tests(all: &mut [Source]) {
    let mut marked = Vec::new();
    for source in all.iter() {
        let around = source.modules().join("/");
        for (_, name, inline) in test_modules(&tokens(&source.text)) {
            if !inline {
                marked.push(format!("{around}/{name}").trim_start_matches('/').to_owned());
            }
        }
    }
    for source in all {
        let own = source.modules().join("/");
        source.is_test =
            marked.iter().any(|module| own == *module || own.starts_with(&format!("{module}/")));
    }
}

/// Everything that is wrong with one file.
fn examine(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.text);
    // Tests stand at the foot of a file; they may print their seeds.
    let foot = test_modules(&tokens).find(|&(_, _, inline)| inline).map(|(at, _, _)| at);
    let shipped = if source.is_test { 0 } else { foot.unwrap_or(tokens.len()) };
    let mut wrong = Vec::new();
    let mut say = |line: usize, what: String| {
        wrong.push(format!("src/{}:{line}: {what}", source.path));
    };
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        say(lines, format!("{lines} lines; a file has at most {LINES_MAX}"));
    }
    floors(source, &tokens, &mut say);
    vendors(source, &tokens, &mut say);
    words(source, &tokens, shipped, &mut say);
    // One `use` of two things is one fault.
    wrong.dedup();
    wrong
}

fn floors(source: &Source, tokens: &[Token<'_>], say: &mut impl FnMut(usize, String)) {
    let modules = source.modules();
    let Some(&own) = modules.first() else { return };
    let Some(&(_, floor)) = FLOORS.iter().find(|(name, _)| *name == own) else {
        say(1, format!("`{own}` has no floor"));
        return;
    };
    for (path, line) in crate_paths(tokens, modules.len()) {
        let Some(&(other, below)) = FLOORS.iter().find(|(name, _)| *name == path[0]) else {
            continue;
        };
        if other != own && below >= floor {
            let way = if below == floor { "sideways" } else { "up" };
            say(line, format!("`{own}` (floor {floor}) imports {way} from `{other}` ({below})"));
        }
        if let ("ops", [_, conductor, ..], [_, callee, _, ..]) = (other, &modules[..], &path[..])
            && own == "ops"
            && *conductor != STORIES
            && callee != conductor
            && !SHARED_BY_CONDUCTORS.contains(callee)
        {
            say(line, format!("conductor `{conductor}` calls conductor `{callee}`"));
        }
    }
    if let ["ops", conductor] = modules[..]
        && conductor != STORIES
    {
        siblings_of_a_conductor(conductor, tokens, say);
    }
}

/// `super::other::…` in `ops/one.rs`.
fn siblings_of_a_conductor(
    conductor: &str,
    tokens: &[Token<'_>],
    say: &mut impl FnMut(usize, String),
) {
    for window in tokens.windows(4) {
        if let [first, sign, callee, after] = window
            && (first.text, sign.text, after.text) == ("super", "::", "::")
            && callee.text.starts_with(|c: char| c.is_ascii_lowercase())
            && callee.text != "super"
            && callee.text != conductor
            && !SHARED_BY_CONDUCTORS.contains(&callee.text)
        {
            let callee = callee.text;
            say(first.line, format!("conductor `{conductor}` calls conductor `{callee}`"));
        }
    }
}

fn vendors(source: &Source, tokens: &[Token<'_>], say: &mut impl FnMut(usize, String)) {
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || !matches!(tokens[at - 1].text, "::" | ".");
        let is_path = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        if !begins || !is_path {
            continue;
        }
        // Our own module has the crate's name: there, only a `use` of its own tells the crate.
        let crate_config = token.text == "config" && at > 0 && tokens[at - 1].text == "use";
        if crate_config && !source.path.starts_with("config/") {
            say(token.line, "the crate `config` is named outside `config`".to_owned());
        }
        if let Some((vendor, places)) = VENDORS.iter().find(|(vendor, _)| *vendor == token.text)
            && !places.iter().any(|place| source.path.starts_with(place))
        {
            say(token.line, format!("`{vendor}` is named outside {}", places.join(", ")));
        }
    }
}

fn words(
    source: &Source,
    tokens: &[Token<'_>],
    shipped: usize,
    say: &mut impl FnMut(usize, String),
) {
    let face = matches!(source.floor_module(), Some("cli") | None);
    let pure = source.floor_module() == Some("domain");
    for (at, window) in tokens.windows(4).enumerate() {
        let [first, second, third, fourth] = window else { continue };
        let line = first.line;
        match [first.text, second.text, third.text, fourth.text] {
            [word @ ("todo" | "unimplemented" | "dbg"), "!", ..] => {
                say(line, format!("`{word}!` is left"));
            }
            ["#", "[", "ignore", _] => say(line, "an ignored test proves nothing".to_owned()),
            [word @ ("println" | "eprintln" | "print" | "eprint"), "!", ..]
                if !face && at < shipped =>
            {
                say(line, format!("`{word}!` outside the command line"));
            }
            ["process", "::", "exit", _] if !face => {
                say(line, "only the command line ends the process".to_owned());
            }
            [word @ ("tokio" | "getrandom"), "::", ..]
            | ["std", "::", word @ ("fs" | "env" | "process"), _]
            | [word @ ("SystemTime" | "Instant" | "Timestamp"), "::", "now", _]
                if pure && at < shipped =>
            {
                say(line, format!("`{word}` in `domain`: no input, output, clock or chance"));
            }
            _ => {}
        }
    }
}

fn sources(directory: &Path, root: &Path, found: &mut Vec<Source>) {
    let entries = fs::read_dir(directory).expect("src can be read");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            sources(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root).expect("below src").display().to_string();
            let text = fs::read_to_string(&path).expect("a source is text");
            found.push(Source { path: below, text, is_test: false });
        }
    }
}

#[test]
fn the_floors_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    sources(&root, &root, &mut all);
    assert!(all.len() > 10, "src has been found");
    mark_tests(&mut all);
    let mut report = String::new();
    for wrong in all.iter().flat_map(examine) {
        writeln!(report, "{wrong}").expect("a string takes it");
    }
    assert!(report.is_empty(), "\n{report}");
}

/// What `examine` says about such a file, without its place.
fn said(path: &str, text: &str) -> Vec<String> {
    let wrong = examine(&Source { path: path.into(), text: text.into(), is_test: false });
    wrong.iter().map(|line| line.splitn(3, ':').nth(2).unwrap_or(line).trim().into()).collect()
}

#[test]
fn imports_up_and_sideways_are_found_in_every_form() {
    let up = "`store` (floor 1) imports up from `repo` (2)";
    let sideways = "`store` (floor 1) imports sideways from `codec` (1)";
    for (text, wrong) in [
        ("use crate::repo::layout;", up),
        ("use crate::{domain::id, repo::{self, layout}};", up),
        ("use super::super::repo::layout;", up),
        ("fn f() { crate::repo::open() }", up),
        ("use crate::domain::{key, id};\nuse crate::codec;", sideways),
    ] {
        assert_eq!(said("store/local.rs", text), [wrong], "{text}");
    }
    for text in [
        "use crate::domain::key::ObjectKey;\nuse super::repo;",
        "// crate::repo\n/* crate::repo /* */ */ const A: &str = \"crate::repo\";",
        "const A: &str = r#\"crate::repo\"#; const B: char = '\"'; const C: &str = \"\\\"crate::repo\";",
        "use crate::store::memory; fn f<'a>(x: &'a str) {}",
    ] {
        assert_eq!(said("store/local.rs", text), [""; 0], "{text}");
    }
    assert_eq!(said("misc/mod.rs", ""), ["`misc` has no floor"]);
}

#[test]
fn conductors_that_call_each_other_are_found() {
    let wrong = ["conductor `restore` calls conductor `verify`"];
    assert_eq!(said("ops/restore.rs", "use super::verify::Plan;"), wrong);
    assert_eq!(said("ops/restore.rs", "use crate::ops::verify::Plan;"), wrong);
    assert_eq!(said("ops/restore.rs", "use super::run::Run; use super::Outcome;"), [""; 0]);
}

#[test]
fn vendors_outside_their_place_are_found() {
    let wrong = ["`age` is named outside codec/encrypt"];
    assert_eq!(said("repo/chunks.rs", "use age::x25519;"), wrong);
    assert_eq!(said("codec/seal.rs", "let a = age::Encryptor::new();"), wrong);
    assert_eq!(said("codec/encrypt.rs", "use age::x25519;"), [""; 0]);
    assert_eq!(
        said("wiring/mod.rs", "use config::Config;"),
        ["the crate `config` is named outside `config`"]
    );
    assert_eq!(said("wiring/mod.rs", "use crate::config; let c = config::load();"), [""; 0]);
}

#[test]
fn printing_ending_and_unfinished_work_are_found() {
    let text = "fn f() { println!(); std::process::exit(1); todo!() }";
    assert_eq!(
        said("ops/list.rs", text),
        [
            "`println!` outside the command line",
            "only the command line ends the process",
            "`todo!` is left"
        ]
    );
    assert_eq!(said("cli/mod.rs", "fn f() { println!(); }"), [""; 0]);
    assert_eq!(said("repo/a.rs", "#[cfg(test)]\nmod tests { fn f() { println!(); } }"), [""; 0]);
    let declared = "#[cfg(test)]\nmod a;\nfn f() { println!(); }";
    assert_eq!(said("repo/mod.rs", declared), ["`println!` outside the command line"]);
    let ignored = "#[test]\n#[ignore = \"slow\"]\nfn t() {}";
    assert_eq!(said("repo/a.rs", ignored), ["an ignored test proves nothing"]);
    let clock = "fn f() { jiff::Timestamp::now(); }";
    let wrong = ["`Timestamp` in `domain`: no input, output, clock or chance"];
    assert_eq!(said("domain/id.rs", clock), wrong);
    let long = "//\n".repeat(LINES_MAX + 1);
    assert_eq!(said("repo/a.rs", &long), ["801 lines; a file has at most 800"]);
}
