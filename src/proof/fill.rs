//! Sessions that put an archive's data into the tables that are there, several into one table where it is large, and
//! [build](super::build) the indexes and keys of those that are filled.
//!
//! Whoever is free takes the next step, or else the next batch, so all sessions end together whatever the sizes of the
//! tables: one COPY of the largest table by one backend is what a restore usually waits for. A table has no index, key
//! or trigger before it has all its rows. Rows of one batch stay together; batches of two sessions lie side by side.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::SinkExt as _;
use futures::future::try_join_all;
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::CopyInSink;

use super::build::{self, Crew, Step, Steps};
use super::intake::{Batch, ObjectPart, Table};
use super::{ProofError, row_settings};
use crate::domain::connection::ConnectionInfo;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_literal};

/// Takes all `batches` and all `steps` with so many sessions of `target`. The first error ends all of it.
///
/// `lc_monetary` is the source's: values of type money are written in it.
pub(super) async fn fill(
    target: &ConnectionInfo,
    sessions: usize,
    lc_monetary: &str,
    batches: mpsc::Receiver<Batch>,
    steps: &Steps,
) -> Result<(), ProofError> {
    let batches = Mutex::new(batches);
    let workers = (0..sessions).map(|_| async {
        let session = Session::connect(target, "restore").await?;
        let memory_kib = build::prepare(&session).await?;
        prepare(&session, lc_monetary).await?;
        work(&session, &batches, Some((steps, memory_kib))).await?;
        drop(session);
        // What is built of expressions is built with the settings that everybody else has, not with those of rows.
        let session = Session::connect(target, "restore").await?;
        build::prepare(&session).await?;
        steps.taken();
        finish(&session, steps, memory_kib).await
    });
    try_join_all(workers).await.map(|_| ())
}

/// Carries out what is left once all rows are there.
async fn finish(session: &Session, steps: &Steps, memory_kib: u64) -> Result<(), ProofError> {
    loop {
        // Before the look, so that a change right after it is not missed.
        let mut change = std::pin::pin!(steps.change());
        change.as_mut().enable();
        match steps.take() {
            Some(taken) => steps.carry_out(session, memory_kib, taken).await?,
            None if steps.is_empty() => return Ok(()),
            None => change.await,
        }
    }
}

pub(super) async fn prepare(session: &Session, lc_monetary: &str) -> Result<(), PostgresError> {
    // Nobody sees the copy before it is proved, and the commit that names it makes all of this durable too.
    session
        .batch(&format!(
            "{}SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET xmloption = content; SET synchronous_commit = off",
            row_settings()
        ))
        .await?;
    let money = session.batch(&format!("SET lc_monetary = {}", quote_literal(lc_monetary))).await;
    match money {
        // A host without that locale; most databases hold no money.
        Err(error) if error.sqlstate().is_some() => Ok(()),
        other => other,
    }
}

/// The table that a session is filling.
type Open = (Arc<Table>, Pin<Box<CopyInSink<Bytes>>>);

/// Takes all `batches` with one session that was prepared, within its transaction.
pub(super) async fn fill_within(
    session: &Session,
    batches: mpsc::Receiver<Batch>,
) -> Result<(), ProofError> {
    work(session, &Mutex::new(batches), None).await
}

/// What a session does next.
enum Next {
    Step((Step, Crew)),
    Batch(Batch),
    /// There are no more batches.
    End,
}

async fn next(batches: &Mutex<mpsc::Receiver<Batch>>, steps: Option<&Steps>) -> Next {
    let batch = async { batches.lock().await.recv().await.map_or(Next::End, Next::Batch) };
    let Some(steps) = steps else { return batch.await };
    let mut batch = std::pin::pin!(batch);
    loop {
        let mut change = std::pin::pin!(steps.change());
        change.as_mut().enable();
        if let Some(taken) = steps.take_early() {
            return Next::Step(taken);
        }
        tokio::select! {
            next = &mut batch => return next,
            () = change => {}
        }
    }
}

/// `steps` is none where all this is one transaction.
async fn work(
    session: &Session,
    batches: &Mutex<mpsc::Receiver<Batch>>,
    steps: Option<(&Steps, u64)>,
) -> Result<(), ProofError> {
    let mut open: Option<Open> = None;
    let mut has_rows = false;
    loop {
        let next = next(batches, steps.map(|(steps, _)| steps)).await;
        let goes_on = |(table, _): &Open| matches!(&next, Next::Batch(Batch::Rows { table: next, .. }) if Arc::ptr_eq(table, next));
        if let Some((table, mut sink)) = open.take_if(|now| !goes_on(now)) {
            sink.as_mut().finish().await.map_err(|error| refused(&table.name, error))?;
            // Whoever lets go of a table last has seen the end of it.
            let filled = Arc::into_inner(table).and_then(|table| table.fills);
            if let (Some(table), Some((steps, _))) = (filled, steps) {
                steps.filled(table);
            }
        }
        let takes_rows = matches!(&next, Next::Batch(_));
        if let Some((steps, _)) = steps
            && takes_rows != has_rows
        {
            has_rows = takes_rows;
            steps.has_rows(has_rows);
        }
        match next {
            Next::End => return Ok(()),
            Next::Step(taken) => {
                if let Some((steps, memory_kib)) = steps {
                    steps.carry_out(session, memory_kib, taken).await?;
                }
            }
            Next::Batch(Batch::Rows { table, lines }) => {
                let (table, sink) = match &mut open {
                    Some(open) => open,
                    none => {
                        let copy = session.client().copy_in(&table.copy);
                        let sink = copy.await.map_err(|error| refused(&table.name, error))?;
                        none.insert((table, Box::pin(sink)))
                    }
                };
                sink.send(lines.into()).await.map_err(|error| refused(&table.name, error))?;
            }
            Next::Batch(Batch::Objects(parts)) => {
                put(session, parts, steps.is_none())
                    .await
                    .map_err(|error| refused("large objects", error))?;
            }
        }
    }
}

/// Writes into large objects that are there, in one transaction.
async fn put(
    session: &Session,
    parts: Vec<ObjectPart>,
    in_transaction: bool,
) -> Result<(), tokio_postgres::Error> {
    let client = session.client();
    let put = client.prepare("SELECT pg_catalog.lo_put($1, $2, $3)").await?;
    if !in_transaction {
        client.batch_execute("BEGIN").await?;
    }
    // All are on their way before the first answer is back.
    let put = &put;
    try_join_all(parts.iter().map(async |ObjectPart { oid, offset, bytes }| {
        client.query_one(put, &[oid, offset, bytes]).await
    }))
    .await?;
    if in_transaction { Ok(()) } else { client.batch_execute("COMMIT").await }
}

/// The database did not take `what`.
pub(super) fn refused(what: &str, error: tokio_postgres::Error) -> ProofError {
    let source = PostgresError::from(error);
    if source.is_verdict() {
        ProofError::Refused { what: what.to_owned(), source }
    } else if matches!(source, PostgresError::ConnectionLost { .. }) {
        // Whoever started the server has its log to tell why.
        source.into()
    } else {
        ProofError::Accident { passing: source.is_transient(), source }
    }
}
