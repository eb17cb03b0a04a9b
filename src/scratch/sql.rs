//! Statements over a session, with its own errors.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::postgres::PostgresError;
use crate::postgres::session::Session;

/// Parameters as `tokio_postgres` takes them.
pub type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What scratch and its users ask of a session.
#[expect(async_fn_in_trait, reason = "used within this crate only, on one type")]
pub trait Statements {
    /// All rows.
    async fn query(&self, sql: &str, parameters: Parameters<'_>)
    -> Result<Vec<Row>, PostgresError>;
    /// The only row.
    async fn query_one(&self, sql: &str, parameters: Parameters<'_>) -> Result<Row, PostgresError>;
    /// The only row, or none.
    async fn query_opt(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, PostgresError>;
    /// Statements without parameters, in the simple protocol: utility statements take no others.
    async fn execute(&self, sql: &str) -> Result<(), PostgresError>;
}

impl Statements for Session {
    async fn query(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, PostgresError> {
        Ok(self.client().query(sql, parameters).await?)
    }
    async fn query_one(&self, sql: &str, parameters: Parameters<'_>) -> Result<Row, PostgresError> {
        Ok(self.client().query_one(sql, parameters).await?)
    }
    async fn query_opt(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, PostgresError> {
        Ok(self.client().query_opt(sql, parameters).await?)
    }
    async fn execute(&self, sql: &str) -> Result<(), PostgresError> {
        Ok(self.client().batch_execute(sql).await?)
    }
}
