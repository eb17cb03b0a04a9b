//! What happens while a verb runs. Bars, logs, metrics and audit all listen here; floors below the
//! command line never print.

/// How much attention a finding wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// Something to mend, though the work goes on.
    Warning,
}

/// Listens to a run. Calls must be cheap: they are made on the data path.
pub trait Observer: Send + Sync {
    /// A named step begins, e.g. `dumping`, about `subject` (a database, a backup id).
    fn step(&self, name: &str, subject: &str);
    /// Bytes done within the present step, and all there are when that is known.
    fn bytes(&self, done: u64, total: Option<u64>);
    /// Something the operator should be told, one line, lower case.
    fn finding(&self, severity: Severity, message: &str);
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn step(&self, _name: &str, _subject: &str) {}
    fn bytes(&self, _done: u64, _total: Option<u64>) {}
    fn finding(&self, _severity: Severity, _message: &str) {}
}
