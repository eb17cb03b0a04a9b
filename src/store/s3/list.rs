//! Listings: page by page, complete or an error.

use std::collections::{BTreeSet, HashSet, VecDeque};

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use super::judge::Request;
use super::retry::Trouble;
use super::{S3Store, nonsense, unexpected};
use crate::domain::key::ObjectKey;
use crate::store::service::ServiceFault;
use crate::store::{ObjectMeta, StoreError};

/// Where a listing stands.
#[derive(Debug, Default)]
struct Place {
    token: Option<String>,
    /// The full names of the page before.
    before: HashSet<String>,
    /// The greatest of them; pages come in order.
    last: String,
    /// Tokens that were used: one that comes back would go round for ever.
    tokens: HashSet<String>,
    /// Whether what has a further `/` is to be named up to that, and once.
    grouped: bool,
    /// Those names.
    groups: BTreeSet<String>,
}

pub(super) fn list<'a>(
    store: &'a S3Store,
    prefix: &str,
) -> BoxStream<'a, Result<ObjectMeta, StoreError>> {
    if !can_begin_a_key(prefix) {
        return stream::empty().boxed();
    }
    let prefix = prefix.to_owned();
    let begin = Some((prefix, Place::default()));
    stream::try_unfold(begin, move |state| async move {
        let Some((prefix, mut place)) = state else { return Ok(None) };
        let (found, more) = page(store, &prefix, &mut place).await?;
        let found = stream::iter(found.into_iter().map(Ok));
        Ok(Some((found, more.then_some((prefix, place)))))
    })
    .try_flatten()
    .boxed()
}

/// What keys go on with up to the next `/`.
pub(super) async fn directories(store: &S3Store, prefix: &str) -> Result<Vec<String>, StoreError> {
    let mut place = Place { grouped: true, ..Place::default() };
    let mut more = can_begin_a_key(prefix);
    while more {
        let (found, truncated) = page(store, prefix, &mut place).await?;
        // A service that knows no delimiter shows all there is.
        let below = found.iter().filter_map(|object| {
            let (first, _) = object.key.as_str().strip_prefix(prefix)?.split_once('/')?;
            Some(format!("{prefix}{first}/"))
        });
        place.groups.extend(below);
        more = truncated;
    }
    Ok(place.groups.into_iter().collect())
}

/// Whether any key can begin so. Services differ in what they make of empty and dotted segments; there
/// is nothing of ours behind them.
fn can_begin_a_key(prefix: &str) -> bool {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    prefix.is_empty() || ObjectKey::parse(whole).is_ok()
}

/// The next page, and whether another one follows.
async fn page(
    store: &S3Store,
    prefix: &str,
    place: &mut Place,
) -> Result<(VecDeque<ObjectMeta>, bool), StoreError> {
    let connected = store.connected().await?;
    let bucket = &store.options.bucket;
    let request = Request { action: "s3:ListBucket", bucket, resource: bucket };
    let full = store.options.full(prefix);
    let failed = |fault: ServiceFault| StoreError::Service {
        action: "cannot list",
        key: if prefix.is_empty() { store.options.address() } else { prefix.to_owned() },
        fault,
    };
    let _turn = store.turn().await;
    let mut retry = store.retry();
    loop {
        let call = connected.client.list_objects_v2().bucket(bucket).prefix(&full);
        let call = call.set_continuation_token(place.token.clone());
        let call = call.set_delimiter(place.grouped.then(|| "/".to_owned())).send();
        let judged = match store.attempt(connected, request, 0, call).await {
            Ok(output) => read(store, prefix, place, &output),
            Err(trouble) => Err(trouble),
        };
        match judged {
            Ok(page) => return Ok(page),
            Err(trouble) => {
                let (fault, again) = unexpected(trouble);
                retry.pause(fault, again).await.map_err(failed)?;
            }
        }
    }
}

/// Takes a page into the listing, or says what is wrong with it; then `place` stays as it was.
fn read(
    store: &S3Store,
    prefix: &str,
    place: &mut Place,
    output: &ListObjectsV2Output,
) -> Result<(VecDeque<ObjectMeta>, bool), Trouble> {
    let contents = output.contents();
    let Some(truncated) = output.is_truncated() else {
        return Err(nonsense("a page of a listing does not say whether it is the last"));
    };
    let prefixes = output.common_prefixes().len();
    let counted = output.key_count().and_then(|count| usize::try_from(count).ok());
    if counted.is_some_and(|count| count != contents.len() + prefixes) {
        return Err(nonsense("a page of a listing does not hold as many keys as it says"));
    }
    let token = output.next_continuation_token().filter(|_| truncated);
    if truncated && token.is_none_or(|token| place.tokens.contains(token)) {
        return Err(nonsense("a listing goes on, and does not say where"));
    }
    let root = store.options.full("");
    let mut names = HashSet::with_capacity(contents.len());
    let mut last = place.last.clone();
    let mut found = VecDeque::with_capacity(contents.len());
    for object in contents {
        let (Some(name), Some(size)) = (object.key(), object.size()) else {
            return Err(nonsense("a listing names an object without its size"));
        };
        if place.before.contains(name) || names.contains(name) {
            continue;
        }
        if name < place.last.as_str() {
            return Err(nonsense("a listing is not in the order of its keys"));
        }
        names.insert(name.to_owned());
        if name > last.as_str() {
            name.clone_into(&mut last);
        }
        // What is no key of ours was put there by others, and is none of our business.
        let own = name.strip_prefix(&root).filter(|own| own.starts_with(prefix));
        let key = own.and_then(|own| ObjectKey::parse(own).ok());
        if let (Some(key), Ok(size_bytes)) = (key, u64::try_from(size)) {
            found.push_back(ObjectMeta { key, size_bytes });
        }
    }
    let groups = output.common_prefixes().iter().filter_map(|group| group.prefix());
    let groups = groups.filter_map(|name| name.strip_prefix(&root));
    let groups = groups.filter(|own| own.starts_with(prefix) && !place.groups.contains(*own));
    let groups: Vec<String> = groups.map(str::to_owned).collect();
    if truncated && names.is_empty() && groups.is_empty() {
        return Err(nonsense("a listing goes on without coming forward"));
    }
    place.groups.extend(groups);
    place.last = last;
    place.before = names;
    place.token = token.map(str::to_owned);
    place.tokens.extend(place.token.clone());
    Ok((found, truncated))
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{CommonPrefix, Object};

    use super::*;
    use crate::store::s3::S3Options;

    fn output(names: &[&str], next: Option<&str>) -> ListObjectsV2Output {
        let object = |name: &&str| Object::builder().key(*name).size(1).build();
        ListObjectsV2Output::builder()
            .set_contents(Some(names.iter().map(object).collect()))
            .is_truncated(next.is_some())
            .set_next_continuation_token(next.map(str::to_owned))
            .key_count(i32::try_from(names.len()).expect("a few"))
            .build()
    }

    /// The keys of these pages under `a/`, or what is wrong with them.
    fn listed(pages: &[ListObjectsV2Output]) -> Result<Vec<String>, String> {
        let store = S3Store::new(S3Options::new("bucket", "root"));
        let mut place = Place::default();
        let mut all = Vec::new();
        for page in pages {
            match read(&store, "a/", &mut place, page) {
                Ok((found, _)) => {
                    all.extend(found.into_iter().map(|object| object.key.to_string()));
                }
                Err(Trouble::Fault(fault, _)) => return Err(fault.to_string()),
                Err(other) => return Err(format!("{other:?}")),
            }
        }
        Ok(all)
    }

    #[test]
    fn a_repeated_page_boundary_is_named_once() {
        let pages = [
            output(&["root/a/1", "root/a/2"], Some("t")),
            output(&["root/a/2", "root/a/3"], Some("u")),
            output(&["root/a/3"], None),
        ];
        assert_eq!(listed(&pages).expect("complete"), ["a/1", "a/2", "a/3"]);
    }

    #[test]
    fn what_cannot_be_complete_is_an_error() {
        let mut no_token = output(&["root/a/1"], Some("t"));
        no_token.next_continuation_token = None;
        let mut no_flag = output(&["root/a/1"], None);
        no_flag.is_truncated = None;
        let mut short = output(&["root/a/1"], None);
        short.key_count = Some(2);
        let round = [output(&["root/a/1"], Some("t")), output(&["root/a/2"], Some("t"))];
        let back = [
            output(&["root/a/1", "root/a/2"], Some("t")),
            output(&["root/a/3"], Some("u")),
            output(&["root/a/1"], None),
        ];
        let still = [output(&["root/a/1"], Some("t")), output(&["root/a/1"], Some("u"))];
        for (pages, words) in [
            (&[no_token][..], "does not say where"),
            (&[no_flag], "whether it is the last"),
            (&[short], "as many keys"),
            (&round, "does not say where"),
            (&back, "order"),
            (&still, "without coming forward"),
        ] {
            let error = listed(pages).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn groups_are_named_once_and_bring_a_listing_forward() {
        let grouped = |groups: &[&str], next: Option<&str>| {
            let one = |name: &&str| CommonPrefix::builder().prefix(*name).build();
            let mut page = output(&[], next);
            page.common_prefixes = Some(groups.iter().map(one).collect());
            page.key_count = i32::try_from(groups.len()).ok();
            page
        };
        let store = S3Store::new(S3Options::new("bucket", "root"));
        let mut place = Place { grouped: true, ..Place::default() };
        let pages = [
            grouped(&["root/a/x/"], Some("t")),
            grouped(&["root/a/x/", "root/a/y/", "rootless/a/z/"], Some("u")),
        ];
        for page in &pages {
            assert!(read(&store, "a/", &mut place, page).is_ok());
        }
        assert_eq!(place.groups, ["a/x/", "a/y/"].map(str::to_owned).into());
        let still = grouped(&["root/a/y/"], Some("v"));
        assert!(read(&store, "a/", &mut place, &still).is_err(), "nothing new came");
    }

    #[test]
    fn what_is_not_ours_is_passed_over() {
        let page =
            output(&["root/a/..", "root/a/b c", "root/a/good", "root/ax", "rootless/a/1"], None);
        assert_eq!(listed(&[page]).expect("complete"), ["a/good"]);
        for prefix in ["/", "../", "a//b", "a/../b", "p/.", "./"] {
            assert!(!can_begin_a_key(prefix), "{prefix}");
        }
        for prefix in ["", "a", "a/", "a/b.", "intents/x."] {
            assert!(can_begin_a_key(prefix), "{prefix}");
        }
    }
}
