//! What a migration tool's own bookkeeping needs after a rollback.
//!
//! Tools keep it in tables of the same database, so the restored table already says what is applied: nothing has to be
//! resolved or repaired in it. What is left is outside: the migration's file, which the next deploy would run again.

use std::collections::BTreeMap;

use crate::domain::migration::Tool;

/// The labels of a guarded snapshot that this reads.
const TOOL: &str = "tool";
const LAST_APPLIED: &str = "last_applied";

/// What to know and to do, one line each, from the labels of the snapshot.
pub(super) fn bookkeeping(labels: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(tool) = labels.get(TOOL).and_then(|word| Tool::of_word(word)) {
        lines.push(format!(
            "`{}` was restored with the rest: a migration that ran since is pending again, one that failed since is \
             gone from it",
            tool.usual_table()
        ));
        if let Some(mend) = tool.mend() {
            lines.push(format!("nothing has to be mended there: no `{mend}`"));
        }
        lines.push(format!(
            "fix or remove the migration's file first: the next `{}` runs it again",
            tool.apply()
        ));
    } else {
        lines.push(
            "the migration tool's own table was restored with the rest: a migration that ran since is pending \
             again, one that failed since is gone from it"
                .to_owned(),
        );
        lines.push(
            "fix or remove the migration before the next deploy, which else runs it again"
                .to_owned(),
        );
    }
    if let Some(last) = labels.get(LAST_APPLIED) {
        lines.push(format!("the last one applied is again {last}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(labels: &[(&str, &str)]) -> Vec<String> {
        bookkeeping(&labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    #[test]
    fn a_tool_that_the_label_names_is_spoken_of_by_its_own_words() {
        insta::assert_snapshot!(told(&[("tool", "Prisma"), ("last_applied", "0002_orders")]).join("\n"), @r"
        `_prisma_migrations` was restored with the rest: a migration that ran since is pending again, one that failed since is gone from it
        nothing has to be mended there: no `prisma migrate resolve`
        fix or remove the migration's file first: the next `prisma migrate deploy` runs it again
        the last one applied is again 0002_orders
        ");
        assert_eq!(told(&[("tool", "django")]).len(), 2);
    }

    #[test]
    fn without_a_tool_that_is_known_it_speaks_of_any() {
        for labels in [&[][..], &[("tool", "ours")][..]] {
            let told = told(labels);
            assert!(told[0].starts_with("the migration tool's own table"), "{told:?}");
        }
    }
}
