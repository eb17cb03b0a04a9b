//! What lies where. Every object name of the repository is made, and taken apart, in this file.

use crate::domain::chunk::ChunkName;
use crate::domain::id::{BackupId, ClusterName, EpochId};
use crate::domain::key::ObjectKey;

/// Format version, repository id, chunking; signed beside.
pub const REPOSITORY: &str = "pgkeep-repository.json";
/// Recovery with stock programs.
pub const RECOVER: &str = "RECOVER.md";
/// All epochs' keys, and who confirmed them.
pub const KEYS: &str = "keys/";
/// All clusters.
pub const CLUSTERS: &str = "clusters/";
/// All chunks of all epochs.
pub const ALL_CHUNKS: &str = "chunks/";
/// All intents, their renewals and ends.
pub const INTENTS: &str = "intents/";
/// All condemned lists.
pub const CONDEMNED: &str = "condemned/";

/// What `check` tries the store with.
pub const PROBES: &str = "probes/";

fn key(text: String) -> ObjectKey {
    ObjectKey::parse(text).expect("layout makes valid keys from checked names")
}

/// The repository document.
pub fn repository() -> ObjectKey {
    key(REPOSITORY.to_owned())
}

/// The recovery page.
pub fn recover() -> ObjectKey {
    key(RECOVER.to_owned())
}

/// The detached minisign signature of an object.
pub fn signature(of: &ObjectKey) -> ObjectKey {
    key(format!("{of}.minisig"))
}

/// Whether `key` is the signature of another object.
pub fn is_signature(key: &ObjectKey) -> bool {
    key.as_str().strip_suffix(".minisig").is_some()
}

/// The keys of an epoch.
pub fn epoch(epoch: &EpochId) -> ObjectKey {
    key(format!("keys/{epoch}.json"))
}

/// The epoch whose keys `key` holds, if it is such a document.
pub fn epoch_of(key: &ObjectKey) -> Option<EpochId> {
    key.as_str().strip_prefix(KEYS)?.strip_suffix(".json")?.parse().ok()
}

/// All confirmations that an epoch's recovery kit is kept elsewhere.
pub fn confirmations(epoch: &EpochId) -> String {
    format!("{KEYS}{epoch}/")
}

/// One confirmation.
pub fn confirmation(epoch: &EpochId, id: &BackupId) -> ObjectKey {
    key(format!("{}{id}.json", confirmations(epoch)))
}

/// The id of a confirmation, if `key` is one's name.
pub fn confirmation_of(key: &ObjectKey) -> Option<BackupId> {
    let (_, id) = key.as_str().strip_prefix(KEYS)?.split_once('/')?;
    id.strip_suffix(".json")?.parse().ok()
}

/// All chunks of an epoch, or those that begin with two hex digits.
pub fn chunks(epoch: &EpochId, shard: Option<&str>) -> String {
    match shard {
        Some(shard) => format!("chunks/{epoch}/{shard}/"),
        None => format!("chunks/{epoch}/"),
    }
}

/// All chunks of an epoch whose names begin with these hex digits.
pub fn chunks_beginning(epoch: &EpochId, digits: &str) -> String {
    format!("chunks/{epoch}/{digits}")
}

/// The epoch and name of a chunk, if `key` is one's.
pub fn chunk_of(key: &ObjectKey) -> Option<(EpochId, ChunkName)> {
    let epoch = key.as_str().strip_prefix("chunks/")?.split('/').next()?.parse().ok()?;
    Some((epoch, key.file_name().parse().ok()?))
}

/// The cluster below whose name that directory is.
pub fn cluster_of(directory: &str) -> Option<ClusterName> {
    directory.strip_prefix(CLUSTERS)?.strip_suffix('/')?.parse().ok()
}

/// All snapshots of a cluster.
pub fn snapshots(cluster: &ClusterName) -> String {
    format!("clusters/{cluster}/snapshots/")
}

/// The manifest of a snapshot: its presence is the backup.
pub fn manifest(cluster: &ClusterName, id: &BackupId) -> ObjectKey {
    key(format!("{}{id}.json", snapshots(cluster)))
}

/// The chunk list of a snapshot.
pub fn chunk_list(cluster: &ClusterName, id: &BackupId) -> ObjectKey {
    key(format!("{}{id}.chunks", snapshots(cluster)))
}

/// The cluster and id of a manifest, if `key` is one's name.
pub fn manifest_of(key: &ObjectKey) -> Option<(ClusterName, BackupId)> {
    let rest = key.as_str().strip_prefix(CLUSTERS)?;
    let (cluster, rest) = rest.split_once('/')?;
    let id = rest.strip_prefix("snapshots/")?.strip_suffix(".json")?;
    Some((cluster.parse().ok()?, id.parse().ok()?))
}

/// All marks of a cluster.
pub fn marks(cluster: &ClusterName) -> String {
    format!("clusters/{cluster}/marks/")
}

/// The marks of one backup.
pub fn marks_of(cluster: &ClusterName, id: &BackupId) -> String {
    format!("{}{id}/", marks(cluster))
}

/// A pin; the suffix keeps a name from being used twice.
pub fn pin(cluster: &ClusterName, id: &BackupId, random: u32) -> ObjectKey {
    key(format!("{}pin-{random:08x}", marks_of(cluster, id)))
}

/// The backup that a pin holds, if `key` is a pin.
pub fn pinned(key: &ObjectKey) -> Option<BackupId> {
    let rest = key.as_str().strip_prefix(CLUSTERS)?.split_once("/marks/")?.1;
    let (id, mark) = rest.split_once('/')?;
    mark.starts_with("pin-").then(|| id.parse().ok())?
}

/// The adoption of a backup; the suffix keeps a name from being used twice.
pub fn adoption(cluster: &ClusterName, id: &BackupId, random: u32) -> ObjectKey {
    key(format!("{}adopted-{random:08x}.json", marks_of(cluster, id)))
}

/// The backup whose adoption `key` is, if it is one.
pub fn adopted(key: &ObjectKey) -> Option<BackupId> {
    let rest = key.as_str().strip_prefix(CLUSTERS)?.split_once("/marks/")?.1;
    let (id, mark) = rest.split_once('/')?;
    let suffix = mark.strip_prefix("adopted-")?.strip_suffix(".json")?;
    if suffix.is_empty() { None } else { id.parse().ok() }
}

/// The audit trail of a cluster.
pub fn events(cluster: &ClusterName) -> String {
    format!("{CLUSTERS}{cluster}/events/")
}

/// An event of the audit trail; that of a prune is put before anything is removed.
pub fn event(cluster: &ClusterName, id: &BackupId) -> ObjectKey {
    key(format!("{}{id}.json", events(cluster)))
}

/// What an object below [`CLUSTERS`] is to a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It is the backup.
    Manifest,
    /// It means nothing without the backup: its signature and chunk list, the signature of a verification.
    Beside,
    /// A pin.
    Pin,
    /// An adoption, or its signature.
    Adoption,
    /// The verification record of that id.
    Record(BackupId),
    /// Of the audit trail: of no backup alone.
    Event,
}

/// What an object below [`CLUSTERS`] is, and of which backup (of an event: its own id). None for what this pgkeep
/// does not know: a prune must not go on beside that.
pub fn part_of(key: &ObjectKey) -> Option<(ClusterName, BackupId, Part)> {
    let (cluster, rest) = key.as_str().strip_prefix(CLUSTERS)?.split_once('/')?;
    let cluster = cluster.parse().ok()?;
    let (section, rest) = rest.split_once('/')?;
    let unsigned = rest.strip_suffix(".minisig").unwrap_or(rest);
    let signature = unsigned.len() < rest.len();
    match section {
        "snapshots" => {
            let (id, kind) = rest.split_once('.')?;
            let part = match kind {
                "json" => Part::Manifest,
                "json.minisig" | "chunks" => Part::Beside,
                _ => return None,
            };
            Some((cluster, id.parse().ok()?, part))
        }
        "marks" => {
            let (id, mark) = unsigned.split_once('/')?;
            let adoption = || mark.strip_prefix("adopted-")?.strip_suffix(".json");
            let part = match (adoption(), mark.strip_prefix("pin-")) {
                (Some(_), _) => Part::Adoption,
                (None, Some(_)) if !signature => Part::Pin,
                _ => return None,
            };
            Some((cluster, id.parse().ok()?, part))
        }
        "verifications" => {
            let (id, record) = unsigned.split_once('/')?;
            let record = record.strip_suffix(".json")?.parse().ok()?;
            let part = if signature { Part::Beside } else { Part::Record(record) };
            Some((cluster, id.parse().ok()?, part))
        }
        "events" => Some((cluster, unsigned.strip_suffix(".json")?.parse().ok()?, Part::Event)),
        _ => None,
    }
}

/// What `check` puts and takes away; where it may not delete, this stays. Nothing reads it.
pub fn probe(id: &BackupId) -> ObjectKey {
    key(format!("{PROBES}{id}"))
}

/// All verification records of a cluster.
pub fn verifications(cluster: &ClusterName) -> String {
    format!("clusters/{cluster}/verifications/")
}

/// One verification record.
pub fn verification(cluster: &ClusterName, backup: &BackupId, record: &BackupId) -> ObjectKey {
    key(format!("{}{backup}/{record}.json", verifications(cluster)))
}

/// The backup and record that `key` names, if it is a verification record.
pub fn verification_of(key: &ObjectKey) -> Option<(BackupId, BackupId)> {
    let rest = key.as_str().strip_prefix(CLUSTERS)?.split_once("/verifications/")?.1;
    let (backup, record) = rest.split_once('/')?;
    Some((backup.parse().ok()?, record.strip_suffix(".json")?.parse().ok()?))
}

/// What became of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentState {
    /// The backup reported success, or was about to.
    Done,
    /// Somebody took the writer for dead: it must not succeed any more, if it hears of it in time.
    Broken,
    /// It is certain that the backup never succeeds (`docs/decisions/0002-dead-is-certified.md`).
    Dead,
}

/// A writer's intent.
pub fn intent(id: &BackupId) -> ObjectKey {
    key(format!("{INTENTS}{id}"))
}

/// The nth renewal of an intent.
pub fn renewal(id: &BackupId, number: u32) -> ObjectKey {
    key(format!("{INTENTS}{id}.{number}"))
}

/// The end of an intent.
pub fn intent_end(id: &BackupId, state: IntentState) -> ObjectKey {
    let word = match state {
        IntentState::Done => "done",
        IntentState::Broken => "broken",
        IntentState::Dead => "dead",
    };
    key(format!("{INTENTS}{id}.{word}"))
}

/// The intent that `key` ends, and how, if it ends one.
pub fn intent_end_of(key: &ObjectKey) -> Option<(BackupId, IntentState)> {
    let (id, word) = key.as_str().strip_prefix(INTENTS)?.split_once('.')?;
    let state = match word {
        "done" => IntentState::Done,
        "broken" => IntentState::Broken,
        "dead" => IntentState::Dead,
        _ => return None,
    };
    Some((id.parse().ok()?, state))
}

/// What an object below [`INTENTS`] says of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentPart {
    /// It is at work.
    Begun,
    /// It was, and has said so again; the number of that renewal.
    Renewed(u32),
    /// It has ended.
    Ended(IntentState),
}

/// The writer whose intent, renewal or end `key` is; none for what this pgkeep does not know.
pub fn intent_part_of(key: &ObjectKey) -> Option<(BackupId, IntentPart)> {
    let name = key.as_str().strip_prefix(INTENTS)?;
    let Some((id, word)) = name.split_once('.') else {
        return Some((name.parse().ok()?, IntentPart::Begun));
    };
    let part = match intent_end_of(key) {
        Some((_, state)) => IntentPart::Ended(state),
        None => IntentPart::Renewed(word.parse().ok()?),
    };
    Some((id.parse().ok()?, part))
}

/// The note of whom a condemned list waits for.
pub fn waits(list: &BackupId) -> ObjectKey {
    key(format!("{CONDEMNED}{list}.waits"))
}

/// The condemned list that `key` is (true) or whose note it is (false); none for what this pgkeep does not know.
pub fn condemned_part_of(key: &ObjectKey) -> Option<(BackupId, bool)> {
    let name = key.as_str().strip_prefix(CONDEMNED)?;
    let id = name.strip_suffix(".waits");
    Some((id.unwrap_or(name).parse().ok()?, id.is_none()))
}

/// A condemned list.
pub fn condemned(id: &BackupId) -> ObjectKey {
    key(format!("{CONDEMNED}{id}"))
}

/// Whether `key` is a condemned list and not the note of whom it waits for.
pub fn is_condemned_list(key: &ObjectKey) -> bool {
    key.as_str().strip_prefix(CONDEMNED).is_some_and(|id| id.parse::<BackupId>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_they_were_made() {
        let cluster: ClusterName = "main".parse().unwrap();
        let id: BackupId = "20261121T020000Z-5f3a9c21".parse().unwrap();
        let record: BackupId = "20261122T020000Z-00000001".parse().unwrap();
        assert_eq!(manifest_of(&manifest(&cluster, &id)), Some((cluster.clone(), id.clone())));
        assert_eq!(cluster_of("clusters/main/"), Some(cluster.clone()));
        assert_eq!(cluster_of("clusters/main/events/"), None);
        assert_eq!(manifest_of(&chunk_list(&cluster, &id)), None);
        assert_eq!(manifest_of(&signature(&manifest(&cluster, &id))), None);
        assert_eq!(pinned(&pin(&cluster, &id, 7)), Some(id.clone()));
        assert_eq!(adopted(&pin(&cluster, &id, 7)), None);
        assert_eq!(adopted(&adoption(&cluster, &id, 7)), Some(id.clone()));
        assert_eq!(adopted(&signature(&adoption(&cluster, &id, 7))), None);
        assert_eq!(pinned(&adoption(&cluster, &id, 7)), None);
        let name = verification(&cluster, &id, &record);
        assert_eq!(verification_of(&name), Some((id.clone(), record)));
        let broken = intent_end(&id, IntentState::Broken);
        assert_eq!(intent_end_of(&broken), Some((id.clone(), IntentState::Broken)));
        assert_eq!(intent_end_of(&renewal(&id, 3)), None);
        assert!(is_condemned_list(&condemned(&id)));
        let part = |key: ObjectKey| part_of(&key).map(|(_, of, part)| (of == id, part));
        let manifest_key = manifest(&cluster, &id);
        assert_eq!(part(manifest_key.clone()), Some((true, Part::Manifest)));
        assert_eq!(part(signature(&manifest_key)), Some((true, Part::Beside)));
        assert_eq!(part(chunk_list(&cluster, &id)), Some((true, Part::Beside)));
        assert_eq!(part(pin(&cluster, &id, 7)), Some((true, Part::Pin)));
        assert_eq!(part(adoption(&cluster, &id, 7)), Some((true, Part::Adoption)));
        assert_eq!(part(signature(&adoption(&cluster, &id, 7))), Some((true, Part::Adoption)));
        assert!(matches!(part(name.clone()), Some((true, Part::Record(_)))));
        assert_eq!(part(signature(&name)), Some((true, Part::Beside)));
        assert_eq!(part(event(&cluster, &id)), Some((true, Part::Event)));
        assert_eq!(part(signature(&event(&cluster, &id))), Some((true, Part::Event)));
        for stranger in ["base-backups/x.json", "snapshots/x.json", "marks/x/guard-1", "notes"] {
            assert_eq!(part(key(format!("clusters/main/{stranger}"))), None, "{stranger}");
        }
        assert_eq!(intent_part_of(&intent(&id)), Some((id.clone(), IntentPart::Begun)));
        assert_eq!(intent_part_of(&renewal(&id, 3)), Some((id.clone(), IntentPart::Renewed(3))));
        assert!(matches!(intent_part_of(&broken), Some((_, IntentPart::Ended(_)))));
        assert_eq!(intent_part_of(&key(format!("intents/{id}.frozen"))), None);
        assert_eq!(condemned_part_of(&condemned(&id)), Some((id.clone(), true)));
        assert_eq!(condemned_part_of(&waits(&id)), Some((id.clone(), false)));
        assert_eq!(condemned_part_of(&key(format!("condemned/{id}.x"))), None);
        let name: EpochId = "0badcafe".parse().unwrap();
        assert_eq!(epoch_of(&epoch(&name)), Some(name.clone()));
        assert_eq!(epoch_of(&signature(&epoch(&name))), None);
        assert_eq!(epoch_of(&confirmation(&name, &id)), None);
        assert_eq!(confirmation_of(&confirmation(&name, &id)), Some(id.clone()));
        assert_eq!(confirmation_of(&epoch(&name)), None);
        assert!(!is_condemned_list(&key(format!("condemned/{id}.waits"))));
    }
}
