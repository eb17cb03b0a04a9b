//! Floor 4: what stands around a migration. Conductors of several verbs of `ops`; nothing here prints.

pub mod rollback;
