//! Which chunks are there: by listings, never by asking for each.

use std::collections::{HashMap, HashSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::error::RepoError;
use super::{Repository, layout};
use crate::domain::chunk::ChunkName;
use crate::domain::id::EpochId;
use crate::store::ObjectMeta;

/// So many chunks whose names begin with one digit are listed together: two pages of most services.
const LISTED_TOGETHER: usize = 2000;

impl Repository {
    /// Which of these chunks a listing shows, with their sizes.
    pub(super) async fn present(
        &self,
        epoch: &EpochId,
        names: impl Iterator<Item = ChunkName>,
    ) -> Result<HashMap<ChunkName, u64>, RepoError> {
        let wanted: HashSet<ChunkName> = names.collect();
        let mut shards: Vec<String> =
            wanted.iter().map(|name| name.hash.to_hex()[..2].to_owned()).collect();
        shards.sort();
        shards.dedup();
        let listings = shards
            .chunk_by(|one, other| one[..1] == other[..1])
            .map(|shards| self.present_in(epoch, shards, &wanted));
        let listings = stream::iter(listings).buffered(self.store.concurrency().max(1));
        let present: Vec<_> = listings.try_concat().await?;
        Ok(present.into_iter().collect())
    }

    /// Those of `wanted` that are in these shards, which have their first digit in common.
    ///
    /// One request for all of them is enough in most repositories, and each costs a round trip; where there are more
    /// chunks, their pages are better read side by side. What is not wanted is let go of page by page: a
    /// repository may hold millions.
    async fn present_in(
        &self,
        epoch: &EpochId,
        shards: &[String],
        wanted: &HashSet<ChunkName>,
    ) -> Result<Vec<(ChunkName, u64)>, RepoError> {
        let of_wanted = |object: ObjectMeta| {
            let name = object.key.file_name().parse().ok()?;
            wanted.contains(&name).then_some((name, object.size_bytes))
        };
        if let [one, _, ..] = shards {
            let together = layout::chunks_beginning(epoch, &one[..1]);
            let listed = self.store.list(&together).take(LISTED_TOGETHER + 1);
            let listed: Vec<ObjectMeta> = listed.try_collect().await?;
            if listed.len() <= LISTED_TOGETHER {
                return Ok(listed.into_iter().filter_map(of_wanted).collect());
            }
        }
        let listings = shards.iter().map(|shard| async move {
            let listed = self.store.list(&layout::chunks(epoch, Some(shard)));
            let present: Vec<_> =
                listed.try_filter_map(async |object| Ok(of_wanted(object))).try_collect().await?;
            Ok(present)
        });
        stream::iter(listings).buffered(self.store.concurrency().max(1)).try_concat().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::test_support::{Still, plaintext_keys};
    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::domain::chunk::Hash;
    use crate::repo::workers::Workers;
    use crate::store::memory::MemoryStore;

    /// Its shard is `<digit><second digit>`.
    fn chunk(digit: u8, second: u8, number: u32) -> ChunkName {
        let mut hash = [0; 32];
        hash[0] = digit << 4 | second;
        hash[1..5].copy_from_slice(&number.to_be_bytes());
        ChunkName::new(Hash(hash), &"20261121T020000Z-5f3a9c21".parse().expect("an id"))
    }

    #[tokio::test]
    async fn chunks_are_found_whether_they_are_listed_together_or_shard_by_shard() {
        let store = Arc::new(MemoryStore::new());
        let (params, ambient) = (ChunkParams::default(), Arc::new(Still::default()));
        let made =
            Repository::create(store.clone(), plaintext_keys(), params, Workers::Inline, ambient);
        let repository = made.await.expect("it is made").0;
        let epoch = EpochId::new(1);
        // Under `0` as many as are listed together, under `1` one more.
        let count = u32::try_from(LISTED_TOGETHER).expect("a few");
        let mut there: Vec<ChunkName> = (0..=count).map(|n| chunk(1, (n % 16) as u8, n)).collect();
        there.extend((0..count).map(|n| chunk(0, (n % 16) as u8, n)));
        for name in &there {
            repository.store.put(&name.key(&epoch), Bytes::from_static(b"x")).await.expect("put");
        }
        let absent = [chunk(0, 3, count), chunk(1, 15, count + 1), chunk(2, 0, 0)];
        let wanted = there.iter().chain(&absent).copied();
        let present = repository.present(&epoch, wanted).await.expect("listed");
        assert_eq!(present.len(), there.len());
        assert!(there.iter().all(|name| present.get(name) == Some(&1)));
    }
}
