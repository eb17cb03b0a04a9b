//! One entry of an access control list, as PostgreSQL prints it: `grantee=privileges/grantor`.
//!
//! Parsed because versions differ in which names they quote, and because a list is a set.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that is no ACL entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an access control entry")]
pub struct AclError(pub String);

/// One entry of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AclItem {
    /// Who may; empty means everybody (`PUBLIC`).
    pub grantee: String,
    /// What: PostgreSQL's letters, each with `*` where it may be passed on.
    pub privileges: String,
    /// Who said so.
    pub grantor: String,
}

impl AclItem {
    /// Parses PostgreSQL's text.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        let bad = || AclError(text.to_owned());
        let (grantee, rest) = role_name(text).ok_or_else(bad)?;
        let rest = rest.strip_prefix('=').ok_or_else(bad)?;
        let (privileges, rest) = rest.split_once('/').ok_or_else(bad)?;
        let (grantor, rest) = role_name(rest).ok_or_else(bad)?;
        if rest.is_empty() {
            Ok(Self { grantee, privileges: privileges.to_owned(), grantor })
        } else {
            Err(bad())
        }
    }

    /// Parses a list; it is empty when it equals the default one.
    pub fn parse_list(acl: Option<&[String]>, default: &[String]) -> Result<Vec<Self>, AclError> {
        let parse = |list: &[String]| -> Result<Vec<Self>, AclError> {
            let mut items =
                list.iter().map(|text| Self::parse(text)).collect::<Result<Vec<_>, _>>()?;
            items.sort();
            Ok(items)
        };
        let Some(acl) = acl else { return Ok(Vec::new()) };
        let items = parse(acl)?;
        // Everything revoked is a list without entries, and not the default one.
        if items.is_empty() && !default.is_empty() {
            return Ok(vec![Self::nothing()]);
        }
        Ok(if items == parse(default)? { Vec::new() } else { items })
    }

    /// Stands for a list without entries: nobody may do anything.
    fn nothing() -> Self {
        Self { grantee: String::new(), privileges: String::new(), grantor: String::new() }
    }

    /// The roles that it names.
    pub fn roles(&self) -> impl Iterator<Item = String> {
        [&self.grantee, &self.grantor].into_iter().filter(|role| !role.is_empty()).cloned()
    }

    /// Without the privileges that only some versions know: `m` (MAINTAIN) came with PostgreSQL 17.
    #[must_use]
    pub fn portable(&self) -> Self {
        let mut privileges = String::new();
        let mut dropped = false;
        for letter in self.privileges.chars() {
            dropped = letter == 'm' || (dropped && letter == '*');
            if !dropped {
                privileges.push(letter);
            }
        }
        Self { privileges, ..self.clone() }
    }
}

impl fmt::Display for AclItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grantee = if self.grantee.is_empty() { "PUBLIC" } else { &self.grantee };
        if self.privileges.is_empty() {
            return write!(f, "nothing to anybody");
        }
        write!(f, "{grantee}={}/{}", self.privileges, self.grantor)
    }
}

/// Splits a role name, quoted or not, off the front.
fn role_name(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find(['=', '/']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(grantee: &str, privileges: &str, grantor: &str) -> AclItem {
        AclItem { grantee: grantee.into(), privileges: privileges.into(), grantor: grantor.into() }
    }

    #[test]
    fn entries_are_read_with_names_of_any_kind() {
        assert_eq!(AclItem::parse("app=r*w/owner"), Ok(item("app", "r*w", "owner")));
        assert_eq!(AclItem::parse("=U/owner"), Ok(item("", "U", "owner")));
        assert_eq!(
            AclItem::parse(r#""a=b/""c"=X/"großer Owner""#),
            Ok(item("a=b/\"c", "X", "großer Owner"))
        );
        assert_eq!(AclItem::parse("größe=r/größe"), Ok(item("größe", "r", "größe")));
        for bad in ["", "app", "app=r", "\"app=r/o", "a=r/o=x"] {
            assert!(AclItem::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_default_list_is_empty_and_revoking_everything_is_not() {
        let default = ["o=arwd/o".to_owned()];
        let of = |acl: &[&str]| {
            let acl: Vec<String> = acl.iter().map(ToString::to_string).collect();
            AclItem::parse_list(Some(&acl), &default).unwrap()
        };
        assert_eq!(AclItem::parse_list(None, &default), Ok(vec![]));
        assert_eq!(of(&["o=arwd/o"]), vec![]);
        assert_eq!(of(&["o=arwd/o", "b=r/o"]), of(&["b=r/o", "o=arwd/o"]));
        assert_eq!(of(&[]), vec![AclItem::nothing()]);
    }

    #[test]
    fn maintain_is_no_difference_between_majors() {
        assert_eq!(item("a", "arwdDxt", "o"), item("a", "arwdDxtm", "o").portable());
        assert_eq!(item("a", "r*w*", "o"), item("a", "r*m*w*", "o").portable());
    }
}
