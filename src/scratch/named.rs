//! Databases of a scratch cluster under names of their own: the whole cluster is ours, and needs no marks.

use std::time::Duration;

use super::ScratchError;
use super::cluster::ScratchCluster;
use super::database::{Creation, create_statement, drop_database};
use crate::domain::inventory::DatabaseFacts;
use crate::postgres::quote_ident;
use crate::postgres::session::Session;
use crate::scratch::sql::Statements as _;

impl ScratchCluster {
    /// Makes an empty database of that name, encoding and locale; `postgres` too, which gives way.
    pub async fn create_database(&self, facts: &DatabaseFacts) -> Result<(), ScratchError> {
        let session = self.beside().await?;
        drop_database(&session, &facts.name).await?;
        let patience = Duration::MAX;
        let creation = Creation {
            facts,
            owner: None,
            tablespace: None,
            closed: false,
            avoid: None,
            tag: 0,
            patience,
        };
        let statement = create_statement(&facts.name, &creation, session.major());
        Ok(session.execute(&statement).await?)
    }

    /// Gives a database another name.
    pub async fn rename_database(&self, from: &str, to: &str) -> Result<(), ScratchError> {
        let session = self.beside().await?;
        drop_database(&session, to).await?;
        let statement =
            format!("ALTER DATABASE {} RENAME TO {}", quote_ident(from), quote_ident(to));
        Ok(session.execute(&statement).await?)
    }

    /// In the one database that is never in the way.
    async fn beside(&self) -> Result<Session, ScratchError> {
        Ok(Session::connect(&self.connection().with_database("template1"), "scratch").await?)
    }
}
