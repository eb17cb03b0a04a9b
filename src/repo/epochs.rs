//! Epochs: which are in force, how one is opened, and who confirmed that its recovery kit is kept elsewhere.
//!
//! An epoch's document names the epochs it replaces: all that were there when it was opened. One that no
//! other names is in force. Nothing is written in a replaced epoch: whoever was removed from the recipients
//! shall read nothing new, and whoever reads `latest` with the new identity shall be able to.
//!
//! A writer looks before it begins and again after its manifest is put. The order is what counts: a writer
//! that does not see the new document at its second look put its manifest before `key rotate` ended. One that
//! sees it fails and declares itself dead, so that its backup never counts. A crash between manifest and look
//! leaves a good backup of the old epoch.
//!
//! A document here that nobody trusted signed stops all writing: it may be a rotation whose signer this host
//! has not been told of, and then its recipients are not ours.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::create::epoch_document;
use super::documents::{self, ConfirmationDocument, EpochDocument, FORMAT};
use super::error::RepoError;
use super::layout;
use super::{Keys, Repository};
use crate::codec::hash::ChunkKey;
use crate::codec::writer_key::WriterKey;
use crate::domain::id::{BackupId, EpochId};

/// What the key of a confirmation's proof is derived under.
const CONFIRMATION: &str = "pgkeep 2026 recovery kit confirmation v1";

impl Repository {
    async fn epoch_names(&self) -> Result<BTreeSet<EpochId>, RepoError> {
        let keys = self.keys_below(layout::KEYS).await?;
        Ok(keys.iter().filter_map(layout::epoch_of).collect())
    }

    async fn read_epochs(
        &self,
        names: impl Iterator<Item = EpochId>,
    ) -> Result<Vec<EpochDocument>, RepoError> {
        let reads = names.map(|name| async move { self.epoch(&name).await });
        let mut all: Vec<EpochDocument> =
            stream::iter(reads).buffered(self.store.concurrency().max(1)).try_collect().await?;
        all.sort_by(|a, b| (a.created_at, &a.epoch).cmp(&(b.created_at, &b.epoch)));
        Ok(all)
    }

    /// Every epoch, oldest first. One that nobody trusted signed is an error.
    pub async fn epochs(&self) -> Result<Vec<EpochDocument>, RepoError> {
        let names = self.epoch_names().await?;
        self.read_epochs(names.into_iter()).await
    }

    /// The epochs that no other replaces, oldest first: one, but for two hosts that rotated at once.
    pub async fn epochs_in_force(&self) -> Result<Vec<EpochDocument>, RepoError> {
        let mut all = self.epochs().await?;
        let replaced: HashSet<EpochId> =
            all.iter().flat_map(|document| document.replaces.clone()).collect();
        all.retain(|document| !replaced.contains(&document.epoch));
        Ok(all)
    }

    /// Refuses to write in `own` when a later epoch replaced it; else the epochs that were seen, so that the
    /// next look need not read them again.
    pub(crate) async fn refuse_replaced(
        &self,
        own: &EpochId,
        judged: &BTreeSet<EpochId>,
    ) -> Result<BTreeSet<EpochId>, RepoError> {
        let names = self.epoch_names().await?;
        let new = names.iter().filter(|name| *name != own && !judged.contains(*name)).cloned();
        let newest = self.read_epochs(new).await?.into_iter().rev();
        match newest.into_iter().find(|document| document.replaces.contains(own)) {
            Some(by) => Err(RepoError::EpochReplaced { epoch: own.clone(), by: by.epoch }),
            None => Ok(names),
        }
    }

    /// The document of an epoch that was going to take the place of `own`, if it was opened and did. A key
    /// that came here later than that belongs to neither.
    pub async fn succession(
        &self,
        own: Option<&EpochId>,
        next: &EpochId,
    ) -> Result<Option<EpochDocument>, RepoError> {
        let document = match self.epoch(next).await {
            Ok(document) => document,
            Err(RepoError::Store(error)) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let follows = own.is_none_or(|own| own == next || document.replaces.contains(own));
        Ok(follows.then_some(document))
    }

    /// Opens the epoch of `writer` for the recipients of `keys`, in place of all that are there.
    ///
    /// The document is the commit: before it is put nothing has changed, and from then on nothing is
    /// written in the epochs before.
    pub async fn open_epoch(
        &self,
        keys: &Keys,
        writer: &WriterKey,
    ) -> Result<EpochDocument, RepoError> {
        self.check_encryption()?;
        let replaces = self.epochs().await?.into_iter().map(|document| document.epoch).collect();
        let document = epoch_document(keys, writer, &**self.ambient(), replaces)?;
        let key = layout::epoch(&writer.epoch);
        let bytes = documents::render(&document).into();
        documents::put_signed(&*self.store, &self.document.id, &writer.signing, &key, bytes)
            .await?;
        Ok(document)
    }

    /// Tells of an epoch that another host opened while `own` was being opened: neither knows the other, so
    /// both are in force.
    pub async fn refuse_collision(&self, own: &EpochDocument) -> Result<(), RepoError> {
        for other in self.epochs_in_force().await? {
            if other.epoch != own.epoch {
                let (epoch, other) = (own.epoch.clone(), other.epoch);
                return Err(RepoError::EpochsCollided { epoch, other });
            }
        }
        Ok(())
    }

    /// Proves that this host's identity opens the epoch's chunk key, and leaves a record of it.
    ///
    /// The record is vouched for by the chunk key itself: only who opened it, or writes with it, can make
    /// one, and only they can check it. So the host of the kit needs no signing key.
    pub async fn confirm(
        &self,
        epoch: &EpochId,
        host: &str,
    ) -> Result<ConfirmationDocument, RepoError> {
        let key = self.chunk_key(epoch).await?;
        let confirmed_at = self.ambient().now();
        let mut document = ConfirmationDocument {
            format: FORMAT,
            id: BackupId::new(confirmed_at, self.ambient().random()),
            epoch: epoch.clone(),
            host: host.to_owned(),
            confirmed_at,
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            proof: String::new(),
        };
        document.proof = self.proof(&document, &key);
        let bytes = Bytes::from(documents::render(&document));
        self.store.put(&layout::confirmation(epoch, &document.id), bytes).await?;
        Ok(document)
    }

    /// The hosts that proved to hold an identity of this epoch, oldest first. Needs its chunk key: the
    /// writer key, or an identity. What cannot be proved counts for nothing.
    pub async fn confirmations(
        &self,
        epoch: &EpochId,
    ) -> Result<Vec<ConfirmationDocument>, RepoError> {
        let key = match &self.keys().writer {
            Some(writer) if writer.epoch == *epoch => writer.chunk_key.clone(),
            _ => self.chunk_key(epoch).await?,
        };
        let mut confirmed = Vec::new();
        for name in self.keys_below(&layout::confirmations(epoch)).await? {
            if layout::confirmation_of(&name).is_none() {
                continue;
            }
            let bytes = self.store.get(&name).await?;
            let Ok(document) = documents::parse::<ConfirmationDocument>(&name, &bytes) else {
                continue;
            };
            if document.epoch == *epoch && document.proof == self.proof(&document, &key) {
                confirmed.push(document);
            }
        }
        confirmed.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(confirmed)
    }

    fn proof(&self, document: &ConfirmationDocument, key: &ChunkKey) -> String {
        let ConfirmationDocument { id, epoch, host, confirmed_at, pgkeep, .. } = document;
        let repository = &self.document.id;
        let text = format!("{repository}\n{epoch}\n{id}\n{host}\n{confirmed_at}\n{pgkeep}\n");
        ChunkKey::from_bytes(key.derive(CONFIRMATION)).hash(text.as_bytes()).to_hex()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::test_support::{Still, description, plaintext_keys, spec};
    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::codec::encrypt::{Identities, Recipients, generate_identity};
    use crate::codec::seal::{Opener, Sealer};
    use crate::codec::sign::SigningKey;
    use crate::domain::failure::{Failure as _, FailureKind};
    use crate::repo::catalog::Filter;
    use crate::repo::workers::Workers;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    struct Reader {
        opener: Opener,
        recipients: Recipients,
    }

    fn reader() -> Reader {
        let (secret, public) = generate_identity();
        let recipients = Recipients::parse(&[public]).expect("own key");
        Reader { opener: Opener::new(Identities::parse(&secret).expect("own key")), recipients }
    }

    fn keys(writer: Option<WriterKey>, reader: &Reader) -> Keys {
        Keys {
            writer,
            recipients: reader.recipients.as_strings(),
            sealer: Some(Sealer::new(&reader.recipients, 1)),
            opener: None,
            trusted: vec![SigningKey::generate(&[2; SigningKey::BYTES]).public()],
            insecure_plaintext: false,
        }
    }

    fn writer(epoch: u32) -> WriterKey {
        let signing = SigningKey::generate(&[2; SigningKey::BYTES]);
        let chunk_key = ChunkKey::from_bytes([u8::try_from(epoch).expect("small"); 32]);
        WriterKey { epoch: EpochId::new(epoch), chunk_key, signing }
    }

    async fn open(store: &Store, keys: Keys) -> Repository {
        let ambient = Arc::new(Still::default());
        Repository::open(store.clone(), keys, Workers::Inline, ambient).await.expect("it is there")
    }

    async fn made(keys: Keys) -> (Store, Repository) {
        let store: Store = Arc::new(MemoryStore::new());
        let (chunking, ambient) = (ChunkParams::default(), Arc::new(Still::default()));
        let made = Repository::create(store.clone(), keys, chunking, Workers::Inline, ambient);
        (store.clone(), made.await.expect("it is made").0)
    }

    #[tokio::test]
    async fn a_replaced_epoch_is_written_in_no_more_and_its_reader_reads_no_new_key() {
        let (old, new) = (reader(), reader());
        let (store, repository) = made(keys(Some(writer(1)), &old)).await;
        repository.write_access().await.expect("in force");
        let document = repository.open_epoch(&keys(None, &new), &writer(2)).await.expect("opened");
        assert_eq!(document.replaces, [EpochId::new(1)]);
        repository.refuse_collision(&document).await.expect("alone");

        let error = repository.write_access().await.err().expect("replaced");
        assert!(matches!(&error, RepoError::EpochReplaced { by, .. } if *by == EpochId::new(2)));
        // Nobody can tell from here where that was.
        let hint = error.hint().expect("a hint");
        assert!(hint.contains("another host") && hint.contains("restart"), "{hint}");
        assert_eq!(error.kind(), FailureKind::Key);
        let rotated = open(&store, keys(Some(writer(2)), &new)).await;
        rotated.write_access().await.expect("in force");
        let differ = open(&store, keys(Some(writer(2)), &old)).await;
        let error = differ.write_access().await.err().expect("others");
        assert!(matches!(error, RepoError::RecipientsDiffer(_)), "{error}");

        let removed = open(&store, Keys { opener: Some(old.opener), ..keys(None, &new) }).await;
        assert!(removed.chunk_key(&EpochId::new(1)).await.is_ok());
        assert!(removed.chunk_key(&EpochId::new(2)).await.is_err());
    }

    /// Its manifest is there, and whoever has only the new identity could not read it.
    #[tokio::test]
    async fn a_backup_in_flight_while_its_epoch_is_replaced_does_not_count() {
        let (old, new) = (reader(), reader());
        let (_, repository) = made(keys(Some(writer(1)), &old)).await;
        let backup = repository.begin_backup(spec()).await.expect("begun");
        let id = backup.id().clone();
        repository.open_epoch(&keys(None, &new), &writer(2)).await.expect("opened");
        let error = backup.commit(description()).await.expect_err("replaced");
        assert!(matches!(error, RepoError::EpochReplaced { .. }), "{error}");
        repository.abandon(&id).await.expect("declared dead");
        let catalog = repository.catalog(&Filter::default()).await.expect("read");
        assert_eq!((catalog.entries.len(), catalog.faults.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_epoch_of_a_stranger_stops_all_writing() {
        let own = reader();
        let (_, repository) = made(keys(Some(writer(1)), &own)).await;
        let stranger = SigningKey::generate(&[9; SigningKey::BYTES]);
        let foreign = WriterKey { signing: stranger, ..writer(2) };
        repository.open_epoch(&keys(None, &own), &foreign).await.expect("put");
        let error = repository.write_access().await.err().expect("a stranger's");
        assert!(matches!(error, RepoError::Stranger { .. }), "{error}");
    }

    #[tokio::test]
    async fn two_rotations_at_once_are_told_and_a_third_replaces_both() {
        let own = reader();
        let (_, repository) = made(keys(Some(writer(1)), &own)).await;
        let two = repository.open_epoch(&keys(None, &own), &writer(2)).await.expect("opened");
        // The other host listed before that one was there.
        let three = EpochDocument { epoch: EpochId::new(3), ..two.clone() };
        let bytes = documents::render(&three).into();
        let (id, key) = (&repository.document.id, layout::epoch(&three.epoch));
        let signing = writer(3).signing;
        documents::put_signed(&*repository.store, id, &signing, &key, bytes).await.expect("put");
        for document in [&two, &three] {
            let error = repository.refuse_collision(document).await.expect_err("two");
            assert_eq!(error.kind(), FailureKind::Busy);
        }
        let four = repository.open_epoch(&keys(None, &own), &writer(4)).await.expect("opened");
        assert_eq!(four.replaces, [1, 2, 3].map(EpochId::new));
        repository.refuse_collision(&four).await.expect("alone");
    }

    #[tokio::test]
    async fn a_confirmation_is_proved_by_the_chunk_key_and_a_forged_one_counts_for_nothing() {
        let own = reader();
        let (store, repository) = made(keys(Some(writer(1)), &own)).await;
        let epoch = EpochId::new(1);
        assert_eq!(repository.confirmations(&epoch).await.expect("none").len(), 0);
        let vault = open(&store, Keys { opener: Some(own.opener), ..keys(None, &reader()) }).await;
        let confirmed = vault.confirm(&epoch, "vault").await.expect("it opens");
        let found = repository.confirmations(&epoch).await.expect("one");
        assert_eq!(found.as_slice(), std::slice::from_ref(&confirmed));
        let id: BackupId = "20261121T020000Z-00000001".parse().expect("an id");
        let forged = ConfirmationDocument { host: "other".to_owned(), id, ..confirmed.clone() };
        let key = layout::confirmation(&epoch, &forged.id);
        store.put(&key, documents::render(&forged).into()).await.expect("put");
        assert_eq!(repository.confirmations(&epoch).await.expect("one"), [confirmed]);
        let stranger = open(&store, Keys { opener: Some(reader().opener), ..plain() }).await;
        assert_eq!(
            stranger.confirm(&epoch, "x").await.expect_err("sealed").kind(),
            FailureKind::Key
        );
    }

    fn plain() -> Keys {
        Keys { writer: None, trusted: vec![writer(1).signing.public()], ..plaintext_keys() }
    }
}
