//! What somebody may have meant who wrote something that is no cron expression. Whether the guess is one is for the
//! caller to see.

/// What croner knows that begins with `@`.
const NICKNAMES: &[&str] = &["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually"];

const MONTHS: &[&str] = &[
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];
const DAYS: &[&str] =
    &["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"];

/// How like a name a word must be to stand for it.
const ALIKE: f64 = 0.5;

/// One of the six.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    words: &'static [&'static str],
}

const fn field(name: &'static str, min: u32, max: u32) -> Field {
    Field { name, min, max, words: &[] }
}

const FIELDS: [Field; 6] = [
    field("second", 0, 59),
    field("minute", 0, 59),
    field("hour", 0, 23),
    field("day of month", 1, 31),
    Field { words: MONTHS, ..field("month", 1, 12) },
    Field { words: DAYS, ..field("day of week", 0, 7) },
];

/// What is wrong with a text, and what is like it and may be right.
pub(super) fn nearest(text: &str) -> (String, Option<String>) {
    let text = text.trim();
    if text.starts_with('@') {
        let score = |known: &&&str| strsim::normalized_damerau_levenshtein(text, known);
        let best = NICKNAMES.iter().max_by(|a, b| score(a).total_cmp(&score(b)));
        let best = if text == "@midnight" { Some(&"@daily") } else { best };
        let why = format!("the nicknames are {}", NICKNAMES.join(", "));
        return (why, best.map(|best| (*best).to_owned()));
    }
    if let Some((hour, minute)) = text.split_once(':').filter(|_| !text.contains(' ')) {
        let why = "a time of day is written with the minute first".to_owned();
        return (why, repaired(&[minute, hour, "*", "*", "*"]).1);
    }
    let mut fields: Vec<&str> = text.split_whitespace().collect();
    let given = fields.len();
    fields.resize(given.clamp(5, 6), "*");
    let (why, nearest) = repaired(&fields);
    match given {
        0 => ("it is empty".to_owned(), None),
        5 | 6 => (why, nearest),
        _ => {
            let fields = if given == 1 { "field" } else { "fields" };
            (format!("it has {given} {fields}, and there are five, or six with a second"), nearest)
        }
    }
}

/// The same on the last day of its months: for a date that no year has.
pub(super) fn of_every_month(text: &str) -> Option<String> {
    let mut fields: Vec<&str> = text.split_whitespace().collect();
    let at = fields.len().checked_sub(3)?;
    fields[at] = "L";
    Some(fields.join(" "))
}

/// Each field made right, and what was wrong with the first that was not.
fn repaired(written: &[&str]) -> (String, Option<String>) {
    let mut why = None;
    let mut fields = Vec::new();
    for (text, field) in written.iter().zip(&FIELDS[FIELDS.len() - written.len()..]) {
        let repaired = field.repaired(text);
        if why.is_none() && repaired.as_deref() != Some(&*text.to_ascii_uppercase()) {
            let Field { name, min, max, .. } = field;
            why = Some(format!("`{text}` is no {name} ({min} to {max})"));
        }
        fields.push(repaired);
    }
    let fields: Option<Vec<String>> = fields.into_iter().collect();
    let why = why.unwrap_or_else(|| "its fields do not go together".to_owned());
    (why, fields.map(|fields| fields.join(" ")))
}

impl Field {
    /// A field like that one, if there is any sense in it.
    fn repaired(&self, text: &str) -> Option<String> {
        let text = text.to_ascii_uppercase();
        let parts: Option<Vec<String>> =
            text.split(',').filter(|part| !part.is_empty()).map(|part| self.part(part)).collect();
        parts.filter(|parts| !parts.is_empty()).map(|parts| parts.join(","))
    }

    /// One of a list: a value, a range, either with a step.
    fn part(&self, text: &str) -> Option<String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?.clamp(1, self.max))),
            None => (text, None),
        };
        let ranges = match (range, range.split_once('-')) {
            ("*" | "", _) => vec!["*".to_owned()],
            ("?", _) if self.is_day() => vec!["?".to_owned()],
            (_, Some((from, to))) => {
                let (from, to) = (self.plain(from)?, self.plain(to)?);
                let end = if to == "SUN" { 7 } else { self.place(&to)? };
                if self.place(&from)? <= end {
                    vec![format!("{from}-{to}")]
                } else {
                    // Over the end of the day, of the week, of the year.
                    vec![format!("{from}-{}", self.max), format!("{}-{to}", self.min)]
                }
            }
            _ if step.is_some() => vec![format!("{}-{}", self.plain(range)?, self.max)],
            _ => vec![self.value(range)?],
        };
        let step = step.map(|step| format!("/{step}")).unwrap_or_default();
        Some(ranges.into_iter().map(|range| range + &step).collect::<Vec<_>>().join(","))
    }

    /// A value, with what days alone can have.
    fn value(&self, text: &str) -> Option<String> {
        if self.name == "day of month" {
            return match text.strip_suffix('W') {
                _ if matches!(text, "L" | "LW") => Some(text.to_owned()),
                Some(day) => Some(format!("{}W", self.plain(day)?)),
                None => self.plain(text),
            };
        }
        if self.name == "day of week" {
            if let Some((day, nth)) = text.split_once('#') {
                let nth =
                    if nth == "L" { nth.to_owned() } else { number(nth)?.clamp(1, 5).to_string() };
                return Some(format!("{}#{nth}", self.plain(day)?));
            }
            if let Some(day) = text.strip_suffix('L').filter(|day| self.place(day).is_some()) {
                return Some(format!("{}L", self.plain(day)?));
            }
        }
        self.plain(text)
    }

    fn is_day(&self) -> bool {
        self.name.starts_with("day")
    }

    /// A number within the bounds, or a name.
    fn plain(&self, text: &str) -> Option<String> {
        if let Some(number) = number(text) {
            let (nearest, same) = (number.clamp(self.min, self.max), text.parse() == Ok(number));
            let kept = same && nearest == number;
            return Some(if kept { text.to_owned() } else { nearest.to_string() });
        }
        let score = |known: &str| {
            let whole = strsim::normalized_damerau_levenshtein(text, known);
            whole.max(strsim::normalized_damerau_levenshtein(text, &known[..3]))
        };
        let best = self.words.iter().max_by(|a, b| score(a).total_cmp(&score(b)))?;
        (score(best) >= ALIKE).then(|| best[..3].to_owned())
    }

    /// Where a value stands among the others.
    fn place(&self, text: &str) -> Option<u32> {
        let named = self.words.iter().position(|word| text.len() == 3 && word.starts_with(text));
        let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + self.min);
        named.or_else(|| text.parse().ok())
    }
}

/// The number in a text that begins with one: `61`, `2am`, `5th`.
fn number(text: &str) -> Option<u32> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u32::MAX))
}
