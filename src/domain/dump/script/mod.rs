//! Reads a plain dump as it streams by: says what it needs and whether it is whole, and lets only that pass
//! which a scratch cluster may run.
//!
//! A plain dump is a program for psql. [`Scanner`] follows psql's own lexer (`psqlscan.l`): strings, dollar
//! quotes, comments, `BEGIN ATOMIC` bodies and rows of COPY, so that a backslash command is seen wherever psql
//! would see one. Of those it knows `\restrict`, `\unrestrict`, `\encoding` and `\connect`, which are left out
//! of what passes; any other is refused, and so is all that makes lexers disagree: NUL bytes, encodings with
//! backslashes inside of characters, psql's own variables.
//!
//! **Invariants.** What is left out gives way to as many line feeds, so that psql counts the lines of the file.
//! A statement passes when its end was seen, or when it is too long to be one that is left out. Any input ends
//! in facts or a [`ScriptError`], never in a panic.

mod facts;

pub use facts::{Refresh, ScriptError, ScriptFacts};

use super::creation;
use super::statement::{self, Kind, Token};

/// A statement that is left out or kept aside is never longer.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// What is kept of a word, a constant or a comment.
const WORD_BYTES_MAX: usize = 1 << 10;
/// What is kept of a statement's tokens: a grant of a table's 1600 columns.
const TOKENS_MAX: usize = 16 << 10;

/// Encodings that have bytes of ASCII within their characters, a backslash among them.
const UNSAFE_ENCODINGS: [&str; 7] =
    ["SJIS", "BIG5", "GBK", "UHC", "GB18030", "JOHAB", "SHIFT_JIS_2004"];

const VARIABLE: &str = "a variable of psql";

/// Where in the text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sql,
    LineComment,
    BlockComment,
    /// A constant, in which a backslash may escape.
    Text {
        escapes: bool,
    },
    Quoted,
    Dollar,
    /// After the end of a COPY statement, up to the end of its line.
    CopyLine,
    Rows,
    /// A backslash command, up to the end of its line.
    Command,
}

/// The push parser; see the module.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each remembers one thing of psql's own lexer")]
pub struct Scanner {
    facts: ScriptFacts,
    /// Whether all before the first `\connect` is left out.
    from_connect: bool,
    state: State,
    /// Ended lines before the present push.
    lines: u64,
    /// Whether the last thing was the comment that ends a whole dump.
    complete: bool,
    standard_strings: bool,
    search_path: Option<String>,
    /// Bytes that wait for a decision.
    pending: Vec<u8>,
    /// Of the present statement: whether some of it has passed, its tokens, and what psql counts.
    passed: bool,
    tokens: Vec<Token>,
    first_word: String,
    words: Vec<u8>,
    parens: u32,
    begins: u32,
    copy_from: bool,
    copies: bool,
    /// Whether a variable of psql's own was asked for.
    variable: bool,
    /// Of the present token.
    word: Vec<u8>,
    previous: u8,
    /// Whether it comes right after a single colon.
    colon: bool,
    comments: u32,
    escaped: bool,
    /// A constant that just ended may go on: whether it escapes, and whether a line has ended since.
    ended: Option<(bool, u8)>,
    quoted_again: bool,
    tag: Vec<u8>,
    candidate: Vec<u8>,
    row_head: Vec<u8>,
}

/// After a constant: nothing, blanks, or a line's end.
const GAP_NONE: u8 = 0;
const GAP_BLANK: u8 = 1;
const GAP_LINE: u8 = 2;

impl Scanner {
    /// For one dump. With `from_connect`, all before its first `\connect` is left out.
    pub fn new(from_connect: bool) -> Self {
        Self {
            facts: ScriptFacts::default(),
            from_connect,
            state: State::Sql,
            lines: 0,
            complete: false,
            standard_strings: true,
            search_path: None,
            pending: Vec::new(),
            passed: false,
            tokens: Vec::new(),
            first_word: String::new(),
            words: Vec::new(),
            parens: 0,
            begins: 0,
            copy_from: false,
            copies: false,
            variable: false,
            word: Vec::new(),
            previous: 0,
            colon: false,
            comments: 0,
            escaped: false,
            ended: None,
            quoted_again: false,
            tag: Vec::new(),
            candidate: Vec::new(),
            row_head: Vec::new(),
        }
    }

    /// The next bytes; what may pass is added to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ScriptError> {
        self.facts.bytes += bytes.len() as u64;
        let line_at = |this: &Self, at: usize| {
            this.lines + memchr::memchr_iter(b'\n', &bytes[..at]).count() as u64 + 1
        };
        if let Some(at) = memchr::memchr(0, bytes) {
            let line = line_at(self, at);
            return Err(ScriptError::Odd { line, what: "a NUL byte" });
        }
        let (mut at, mut from) = (0, 0);
        while at < bytes.len() {
            let stopped = |this: &Self, stop: Stop| stop.at(line_at(this, at));
            let (next, mut decision) = match self.step(bytes, at) {
                Ok(step) => step,
                Err(stop) => return Err(stopped(self, stop)),
            };
            if decision != Decision::None {
                self.pending.extend_from_slice(&bytes[from..next]);
                from = next;
            }
            if decision == Decision::End {
                decision = match self.end_statement() {
                    Ok(decision) => decision,
                    Err(stop) => return Err(stopped(self, stop)),
                };
            }
            match decision {
                Decision::None | Decision::End => {}
                Decision::Pass => self.pass(out),
                Decision::LeaveOut => self.leave_out(out),
            }
            at = next;
        }
        self.pending.extend_from_slice(&bytes[from..]);
        let long = self.pending.len() > STATEMENT_BYTES_MAX;
        if self.state == State::Rows || (long && self.state != State::Command) {
            if self.variable {
                return Err(Stop::Odd(VARIABLE).at(line_at(self, bytes.len())));
            }
            self.passed = true;
            self.pass(out);
        }
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        Ok(())
    }

    /// Says that the input has ended; gives what was learned, if the dump is whole.
    pub fn complete(mut self, out: &mut Vec<u8>) -> Result<ScriptFacts, ScriptError> {
        if self.state == State::LineComment {
            self.comment();
            self.state = State::Sql;
        }
        self.end_word();
        let within = match self.state {
            State::Rows | State::CopyLine => "within the rows of a table",
            State::Text { .. } | State::Quoted | State::Dollar => "within a quoted text",
            State::BlockComment | State::LineComment => "within a comment",
            State::Command => "within a command of psql",
            State::Sql if !self.tokens_are_none() => "within a statement",
            State::Sql if !self.complete => {
                "without the line `-- PostgreSQL database dump complete`"
            }
            State::Sql => {
                self.pass(out);
                return Ok(self.facts);
            }
        };
        Err(ScriptError::Incomplete { line: self.lines + 1, within })
    }

    fn tokens_are_none(&self) -> bool {
        self.first_word.is_empty() && self.tokens.is_empty()
    }

    fn pass(&mut self, out: &mut Vec<u8>) {
        if self.from_connect && self.facts.connects.is_none() {
            self.leave_out(out);
        } else {
            out.append(&mut self.pending);
        }
    }

    fn leave_out(&mut self, out: &mut Vec<u8>) {
        let lines = memchr::memchr_iter(b'\n', &self.pending).count();
        out.resize(out.len() + lines, b'\n');
        self.pending.clear();
    }

    /// One step from `at`: where the next begins, and what becomes of all up to there.
    fn step(&mut self, bytes: &[u8], at: usize) -> Result<(usize, Decision), Stop> {
        let byte = bytes[at];
        match self.state {
            State::Sql => return Ok((at + 1, self.sql(byte)?)),
            State::LineComment => {
                if matches!(byte, b'\n' | b'\r') {
                    self.comment();
                    self.state = State::Sql;
                    // The end of the line is seen outside of the comment too.
                    return Ok((at, Decision::None));
                }
                if self.word.len() < WORD_BYTES_MAX {
                    self.word.push(byte);
                }
            }
            State::BlockComment => {
                let pair = (self.previous, byte);
                self.previous = byte;
                if pair == (b'*', b'/') || pair == (b'/', b'*') {
                    self.comments =
                        if pair.0 == b'/' { self.comments + 1 } else { self.comments - 1 };
                    self.previous = 0;
                }
                if self.comments == 0 {
                    self.state = State::Sql;
                }
            }
            State::Text { escapes } => return Ok((self.text(bytes, at, escapes), Decision::None)),
            State::Quoted => {
                let end = memchr::memchr(b'"', &bytes[at..]).map_or(bytes.len(), |n| at + n);
                self.keep(&bytes[at..end]);
                if end < bytes.len() {
                    self.state = State::Sql;
                    self.quoted_again = true;
                    return Ok((end + 1, Decision::None));
                }
                return Ok((end, Decision::None));
            }
            State::Dollar => self.dollar(byte),
            State::CopyLine => match byte {
                b'\n' => {
                    self.state = State::Rows;
                    self.row_head.clear();
                    return Ok((at + 1, Decision::Pass));
                }
                b' ' | b'\t' | b'\r' => {}
                _ => return Err(Stop::Odd("more after the end of a COPY statement")),
            },
            State::Rows => return Ok(self.rows(bytes, at)),
            State::Command => {
                if byte == b'\n' {
                    // Before its line's end, which passes with what comes.
                    self.command()?;
                    self.state = State::Sql;
                    return Ok((at, Decision::LeaveOut));
                }
                if self.word.len() >= WORD_BYTES_MAX {
                    return Err(Stop::Odd("a command of psql that has no end"));
                }
                self.word.push(byte);
            }
        }
        Ok((at + 1, Decision::None))
    }

    /// A byte outside of everything.
    fn sql(&mut self, byte: u8) -> Result<Decision, Stop> {
        if std::mem::take(&mut self.quoted_again) {
            if byte == b'"' {
                self.keep(b"\"");
                self.state = State::Quoted;
                return Ok(Decision::None);
            }
            let name = self.take_word();
            self.refuse_variable(&name);
            self.token(Token::Quoted(name));
        }
        if !self.candidate.is_empty() {
            if self.tag_goes_on(byte)? {
                return Ok(Decision::None);
            }
            // It was none; what stood after the sign is a word.
            let word = std::mem::take(&mut self.candidate);
            self.keep(&word[1..]);
        }
        let previous = std::mem::replace(&mut self.previous, byte);
        if previous == b'-' && byte != b'-' {
            self.ended_text();
        }
        let of_word = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80;
        if of_word && (byte != b'$' || self.in_word()) {
            self.ended_text();
            self.keep(&[byte]);
            return Ok(Decision::None);
        }
        if byte == b'\'' {
            self.variable |= previous == b':' && self.colon;
            self.quote();
            return Ok(Decision::None);
        }
        self.end_word();
        match (previous, byte) {
            (b'-', b'-') => {
                self.untoken(b'-');
                self.word.clear();
                self.previous = 0;
                self.state = State::LineComment;
                return Ok(Decision::None);
            }
            (b'/', b'*') => {
                self.untoken(b'/');
                self.previous = 0;
                self.comments = 1;
                self.state = State::BlockComment;
                return Ok(Decision::None);
            }
            _ => {}
        }
        match byte {
            b'\n' | b'\r' => self.gap(GAP_LINE),
            b' ' | b'\t' | 0x0b | 0x0c => self.gap(GAP_BLANK),
            // It may begin a comment, which is no more than a blank.
            b'-' => self.token(Token::Sign(b'-')),
            _ => {
                self.ended_text();
                // A quoted name may be the variable's; two colons are a cast.
                self.colon = (byte == b'"' && previous == b':' && self.colon)
                    || (byte == b':' && !(previous == b':' && self.colon));
                return Ok(self.sign(byte));
            }
        }
        self.colon = false;
        Ok(Decision::None)
    }

    /// Remembers a name right after a colon, if it is one of psql's own, all of which are in capitals: its value
    /// would be read as if it stood there.
    fn refuse_variable(&mut self, name: &str) {
        let capitals = name.bytes().any(|byte| byte.is_ascii_uppercase())
            && !name.bytes().any(|byte| byte.is_ascii_lowercase());
        self.variable |= std::mem::take(&mut self.colon) && capitals;
    }

    fn sign(&mut self, byte: u8) -> Decision {
        match byte {
            b'"' => self.state = State::Quoted,
            b'$' => self.candidate.push(b'$'),
            b'\\' => {
                self.word.clear();
                self.state = State::Command;
            }
            b';' if self.parens == 0 && self.begins == 0 => return Decision::End,
            _ => {
                match byte {
                    b'(' => self.parens += 1,
                    b')' => self.parens = self.parens.saturating_sub(1),
                    _ => {}
                }
                self.token(Token::Sign(byte));
            }
        }
        Decision::None
    }

    /// Whether an unquoted word is being read.
    fn in_word(&self) -> bool {
        !self.word.is_empty() && self.ended.is_none()
    }

    /// A quote: a constant begins, or one goes on.
    fn quote(&mut self) {
        let escapes = match self.ended.take() {
            Some((escapes, GAP_NONE)) => {
                self.keep(b"'");
                escapes
            }
            Some((escapes, GAP_LINE)) => escapes,
            ended => {
                if ended.is_some() {
                    self.ended = ended;
                    self.ended_text();
                }
                let prefix = self.word.to_ascii_lowercase();
                let escapes = match &prefix[..] {
                    b"e" => true,
                    b"b" | b"x" => false,
                    _ => !self.standard_strings,
                };
                if matches!(&prefix[..], b"e" | b"b" | b"x" | b"n") {
                    self.word.clear();
                } else {
                    self.end_word();
                }
                escapes
            }
        };
        self.state = State::Text { escapes };
    }

    /// Within a constant, as far as nothing special comes.
    fn text(&mut self, bytes: &[u8], at: usize, escapes: bool) -> usize {
        if std::mem::take(&mut self.escaped) {
            self.keep(&bytes[at..=at]);
            return at + 1;
        }
        let rest = &bytes[at..];
        let end =
            if escapes { memchr::memchr2(b'\'', b'\\', rest) } else { memchr::memchr(b'\'', rest) };
        let end = end.map_or(bytes.len(), |length| at + length);
        self.keep(&bytes[at..end]);
        match bytes.get(end) {
            Some(b'\'') => {
                self.ended = Some((escapes, GAP_NONE));
                self.state = State::Sql;
                self.previous = b'\'';
                end + 1
            }
            Some(_) => {
                self.escaped = true;
                end + 1
            }
            None => end,
        }
    }

    fn gap(&mut self, gap: u8) {
        if let Some((_, seen)) = &mut self.ended {
            *seen = gap.max(*seen);
        }
    }

    /// A constant that does not go on is a token.
    fn ended_text(&mut self) {
        if self.ended.take().is_some() {
            let text = self.take_word();
            self.token(Token::Text(text));
        }
    }

    /// Whether `byte` goes on with the beginning of a dollar quote; with its end the quoted text begins.
    fn tag_goes_on(&mut self, byte: u8) -> Result<bool, Stop> {
        let first = self.candidate.len() == 1;
        let letter = byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80;
        if self.candidate.len() > WORD_BYTES_MAX {
            return Err(Stop::Odd("a dollar quote without end"));
        }
        if byte == b'$' {
            self.candidate.push(b'$');
            self.tag = std::mem::take(&mut self.candidate);
            self.state = State::Dollar;
        } else if letter || (!first && byte.is_ascii_digit()) {
            self.candidate.push(byte);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn dollar(&mut self, byte: u8) {
        if byte == b'$' {
            self.candidate.push(b'$');
            if self.candidate == self.tag {
                self.candidate.clear();
                self.tag.clear();
                self.state = State::Sql;
                self.token(Token::Text(String::new()));
            } else {
                self.candidate.truncate(1);
                self.candidate[0] = b'$';
            }
        } else if !self.candidate.is_empty() {
            if self.candidate.len() < self.tag.len() {
                self.candidate.push(byte);
            } else {
                self.candidate.clear();
            }
        }
    }

    /// Rows of a COPY statement, a line or what is there of it.
    fn rows(&mut self, bytes: &[u8], at: usize) -> (usize, Decision) {
        let rest = &bytes[at..];
        let end = memchr::memchr(b'\n', rest);
        let line = &rest[..end.map_or(rest.len(), |end| end + 1)];
        let room = 4_usize.saturating_sub(self.row_head.len());
        self.row_head.extend_from_slice(&line[..line.len().min(room)]);
        let next = at + line.len();
        if end.is_none() {
            return (next, Decision::None);
        }
        let last = matches!(&self.row_head[..], b"\\.\n" | b"\\.\r\n");
        self.row_head.clear();
        if !last {
            return (next, Decision::None);
        }
        self.state = State::Sql;
        self.reset();
        (next, Decision::Pass)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = WORD_BYTES_MAX.saturating_sub(self.word.len());
        self.word.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn take_word(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.word).into_owned();
        self.word.clear();
        text
    }

    /// The end of an unquoted word.
    fn end_word(&mut self) {
        if self.word.is_empty() || self.ended.is_some() || self.quoted_again {
            return;
        }
        let word = self.take_word();
        self.refuse_variable(&word);
        let word = word.to_ascii_lowercase();
        self.count(&word);
        self.token(Token::Word(word));
    }

    /// What psql counts: whether it is inside of a function's body, and whether rows follow.
    fn count(&mut self, word: &str) {
        if word.as_bytes()[0].is_ascii_digit() {
            return;
        }
        if self.words.len() < 4 {
            let told = matches!(word, "create" | "function" | "procedure" | "or" | "replace");
            self.words.push(if told { word.as_bytes()[0] } else { 0 });
        }
        let of_routine =
            matches!(self.words[..], [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p', ..]);
        if of_routine && self.parens == 0 {
            match word {
                "begin" => self.begins += 1,
                "case" if self.begins > 0 => self.begins += 1,
                "end" => self.begins = self.begins.saturating_sub(1),
                _ => {}
            }
        }
        if self.first_word.is_empty() && self.tokens.is_empty() {
            word.clone_into(&mut self.first_word);
        }
        if self.first_word == "copy" && self.parens == 0 {
            self.copies |= self.copy_from && word == "stdin";
            self.copy_from = word == "from";
        }
    }

    fn token(&mut self, token: Token) {
        if !matches!(token, Token::Word(_)) {
            self.copy_from = false;
        }
        let wanted = self.first_word.is_empty() || statement::matters(&self.first_word);
        if self.tokens.len() < if wanted { TOKENS_MAX } else { 1 } {
            self.tokens.push(token);
        }
    }

    /// Takes back a sign that turned out to begin a comment.
    fn untoken(&mut self, sign: u8) {
        if self.tokens.last() == Some(&Token::Sign(sign)) {
            self.tokens.pop();
        }
    }

    fn reset(&mut self) {
        self.tokens.clear();
        self.first_word.clear();
        self.words.clear();
        (self.parens, self.begins) = (0, 0);
        (self.copy_from, self.copies, self.passed) = (false, false, false);
        self.previous = 0;
    }

    fn end_statement(&mut self) -> Result<Decision, Stop> {
        let tokens = std::mem::take(&mut self.tokens);
        let copies = self.copies;
        if std::mem::take(&mut self.variable) {
            return Err(Stop::Odd(VARIABLE));
        }
        let empty = tokens.is_empty();
        self.complete &= empty;
        let decision = if empty { Decision::Pass } else { self.learn(&tokens)? };
        self.reset();
        if copies {
            self.state = State::CopyLine;
        }
        Ok(decision)
    }

    fn learn(&mut self, tokens: &[Token]) -> Result<Decision, Stop> {
        statement::roles(tokens, &mut self.facts.roles);
        if let Some(name) = statement::extension(tokens) {
            self.facts.extensions.insert(name.to_owned());
        }
        if let Some(value) = statement::conforming_strings(tokens) {
            self.standard_strings = value;
        }
        if let Some(value) = statement::setting(tokens, "client_encoding") {
            if UNSAFE_ENCODINGS.contains(&&*value.to_ascii_uppercase()) {
                return Err(Stop::Encoding(value.to_owned()));
            }
            self.facts.client_encoding = Some(value.to_owned());
        }
        if statement::sets_search_path(tokens) {
            self.search_path = Some(self.statement());
        }
        self.facts.money |= statement::names_money(tokens);
        let kind = statement::kind(tokens);
        if self.passed && kind != Kind::Plain {
            return Err(Stop::Odd("a statement that is longer than any pg_dump writes"));
        }
        Ok(match kind {
            Kind::Plain => Decision::Pass,
            Kind::OfServer => return Err(Stop::WholeServer),
            Kind::CreateDatabase => {
                self.facts.database.get_or_insert_with(|| creation::facts(tokens));
                Decision::Pass
            }
            Kind::OfDatabase => {
                let text = self.statement();
                let later = self.facts.connects.is_some();
                let all = if later {
                    &mut self.facts.of_database_later
                } else {
                    &mut self.facts.of_database
                };
                all.push(text);
                Decision::Pass
            }
            Kind::Refresh => {
                let (search_path, statement) = (self.search_path.clone(), self.statement());
                self.facts.refreshes.push(Refresh { search_path, statement });
                Decision::LeaveOut
            }
            Kind::Tablespace => {
                self.facts.tablespaces = true;
                Decision::LeaveOut
            }
        })
    }

    /// The statement that waits, with the comments before it.
    fn statement(&self) -> String {
        String::from_utf8_lossy(&self.pending).trim().to_owned()
    }

    /// A comment has ended; in some `pg_dump` tells of the dump.
    fn comment(&mut self) {
        let text = self.take_word();
        let text = text.trim();
        let after = |words: &str| text.strip_prefix(words).map(|rest| Some(rest.trim().to_owned()));
        if text == "PostgreSQL database dump complete" {
            self.complete = true;
        } else if let Some(version) = after("Dumped from database version") {
            self.facts.server_version = version;
        } else if let Some(version) = after("Dumped by pg_dump version") {
            self.facts.dump_version = version;
        } else if let Some(time) = after("Started on") {
            self.facts.started = time;
        }
    }

    /// A backslash command, which stands in `word` without its backslash.
    fn command(&mut self) -> Result<(), Stop> {
        let line = self.take_word();
        let line = line.trim_end();
        let (name, words) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let alone = self.tokens_are_none() && !words.contains('\\');
        match name {
            // `pg_dump` writes the last one in front of a name that is not plain.
            "restrict" | "unrestrict" | "encoding" if alone => Ok(()),
            "connect" if alone => {
                let database = creation::connected(words);
                let database = database.ok_or_else(|| Stop::Command(name.to_owned()))?;
                match &self.facts.connects {
                    Some(other) if *other != database => Err(Stop::Databases(database)),
                    Some(_) => Ok(()),
                    None => {
                        self.facts.connects = Some(database);
                        Ok(())
                    }
                }
            }
            _ => Err(Stop::Command(name.to_owned())),
        }
    }
}

/// What becomes of the bytes up to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Wait.
    None,
    /// A statement ends here.
    End,
    Pass,
    LeaveOut,
}

/// Why a scan ends, without the place.
#[derive(Debug)]
enum Stop {
    Odd(&'static str),
    Command(String),
    Databases(String),
    WholeServer,
    Encoding(String),
}

impl Stop {
    fn at(self, line: u64) -> ScriptError {
        match self {
            Self::Odd(what) => ScriptError::Odd { line, what },
            Self::Command(command) => ScriptError::Command { line, command },
            Self::Databases(database) => ScriptError::Databases { line, database },
            Self::WholeServer => ScriptError::WholeServer { line },
            Self::Encoding(encoding) => ScriptError::Encoding(encoding),
        }
    }
}

#[cfg(test)]
mod tests;
