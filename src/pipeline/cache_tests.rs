//! Keys, the budget, and who runs when identical documents meet.

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::engine::{ClientId, Lane};

type Joined<'a> = Pin<Box<dyn Future<Output = Result<Arc<Answer>, ClassifyError>> + 'a>>;

fn cache(max_bytes: u64) -> Arc<Cache> {
    Cache::new(CacheConfig { max_bytes }).unwrap()
}

fn document(title: &str, text: &str) -> Document {
    Document { id: String::new(), title: title.to_owned(), text: text.to_owned() }
}

fn key(text: &str) -> Key {
    Key::new("model", &document("", text), LongText::Windows)
}

fn answer(logit: f32) -> Answer {
    Answer { logits: vec![vec![logit; 20], vec![logit; 3]], usage: Usage::default() }
}

fn poll(joined: &mut Joined<'_>) -> Poll<Result<Arc<Answer>, ClassifyError>> {
    joined.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A document that is answered `logit` as soon as it runs.
fn quick(cache: &Cache, lane: Lane, logit: f32) -> Joined<'_> {
    Box::pin(cache.join(key("text"), (lane, ClientId::default()), async move { Ok(answer(logit)) }))
}

/// A document that runs for ever.
fn slow(cache: &Cache, lane: Lane) -> Joined<'_> {
    Box::pin(cache.join(key("text"), (lane, ClientId::default()), pending()))
}

proptest! {
    #[test]
    fn only_the_same_model_title_text_and_reading_have_one_key(
        one in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}", 0..3),
        other in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}", 0..3),
    ) {
        let key = |(model, title, text, long_text): &(String, String, String, i32)| {
            let long_text = [LongText::Windows, LongText::Head, LongText::Reject]
                .into_iter()
                .nth(*long_text as usize)
                .unwrap();
            Key::new(model, &document(title, text), long_text)
        };
        prop_assert_eq!(key(&one) == key(&other), one == other);
    }
}

#[test]
fn the_id_of_a_document_is_no_part_of_its_key() {
    let with_id = Document { id: "7".to_owned(), ..document("title", "text") };
    let reading = LongText::Windows;
    assert_eq!(
        Key::new("model", &with_id, reading),
        Key::new("model", &document("title", "text"), reading)
    );
}

#[test]
fn no_bytes_are_no_cache() {
    assert!(Cache::new(CacheConfig::default()).is_none());
}

#[tokio::test]
async fn the_bytes_of_all_entries_stay_within_the_budget() {
    let each = u64::from(answer(0.0).entry_bytes());
    assert!(each > 400 + 32 + 23 * 4, "{each}");
    let cache = cache(each * 10 + each / 2);
    for index in 0..1_000 {
        let run = async { Ok(answer(0.0)) };
        cache.join(key(&index.to_string()), (Lane::Bulk, ClientId::default()), run).await.unwrap();
        let CacheStats { entries, bytes, .. } = cache.stats();
        assert!(entries <= 10 && bytes == entries * each, "{entries} entries of {bytes} bytes");
    }
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.evictions, stats.misses), (10, 990, 1_000));
    // The last ones are those that are kept.
    assert!(cache.get(key("999")).is_some() && cache.get(key("0")).is_none());
}

#[tokio::test]
async fn an_entry_over_the_whole_budget_is_answered_and_not_kept() {
    let cache = cache(100);
    assert_eq!(*quick(&cache, Lane::Bulk, 1.0).await.unwrap(), answer(1.0));
    assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
}

#[tokio::test]
async fn what_was_answered_is_found() {
    let cache = cache(10_000);
    assert!(cache.get(key("text")).is_none());
    quick(&cache, Lane::Bulk, 1.0).await.unwrap();
    assert_eq!(*cache.get(key("text")).unwrap(), answer(1.0));
    // Even by one who looked before.
    assert_eq!(*quick(&cache, Lane::Bulk, 2.0).await.unwrap(), answer(1.0));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.coalesced, stats.misses), (1, 1, 1));
}

#[tokio::test]
async fn a_failure_is_not_shared_and_not_kept() {
    let cache = cache(10_000);
    let (fail, failing) = tokio::sync::oneshot::channel::<()>();
    let mut first: Joined<'_> =
        Box::pin(cache.join(key("text"), (Lane::Bulk, ClientId::default()), async {
            drop(failing.await);
            Err(ClassifyError::Empty)
        }));
    assert!(poll(&mut first).is_pending());
    let mut second = quick(&cache, Lane::Bulk, 2.0);
    assert!(poll(&mut second).is_pending());
    assert_eq!(cache.stats().waiting, 1);
    fail.send(()).unwrap();
    assert_eq!(first.await, Err(ClassifyError::Empty));
    assert_eq!(*second.await.unwrap(), answer(2.0));
    let stats = cache.stats();
    assert_eq!((stats.waiting, stats.misses, stats.coalesced), (0, 2, 0));
}

#[tokio::test]
async fn one_who_waits_runs_if_the_first_leaves() {
    let cache = cache(10_000);
    let mut first = slow(&cache, Lane::Bulk);
    assert!(poll(&mut first).is_pending());
    let (mut second, mut third) = (quick(&cache, Lane::Bulk, 2.0), quick(&cache, Lane::Bulk, 3.0));
    assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
    drop(first);
    assert_eq!(*second.await.unwrap(), answer(2.0));
    assert_eq!(*third.await.unwrap(), answer(2.0));
    assert_eq!(cache.stats().coalesced, 1);
    assert!(cache.flights.lock().is_empty());
}

#[tokio::test]
async fn one_who_waits_runs_if_the_first_panics() {
    let cache = cache(10_000);
    let (end, ending) = tokio::sync::oneshot::channel::<()>();
    let mut first: Joined<'_> =
        Box::pin(cache.join(key("text"), (Lane::Bulk, ClientId::default()), async {
            drop(ending.await);
            panic!("the test asked for this");
        }));
    assert!(poll(&mut first).is_pending());
    let mut second = quick(&cache, Lane::Bulk, 2.0);
    assert!(poll(&mut second).is_pending());
    end.send(()).unwrap();
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| poll(&mut first))).is_err());
    drop(first);
    assert_eq!(*second.await.unwrap(), answer(2.0));
    assert!(cache.flights.lock().is_empty());
}

#[tokio::test]
async fn one_who_waits_may_leave() {
    let cache = cache(10_000);
    let (end, ending) = tokio::sync::oneshot::channel::<()>();
    let mut first: Joined<'_> =
        Box::pin(cache.join(key("text"), (Lane::Bulk, ClientId::default()), async {
            drop(ending.await);
            Ok(answer(1.0))
        }));
    assert!(poll(&mut first).is_pending());
    let (mut second, mut third) = (quick(&cache, Lane::Bulk, 2.0), quick(&cache, Lane::Bulk, 3.0));
    assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
    drop(second);
    end.send(()).unwrap();
    assert_eq!(*first.await.unwrap(), answer(1.0));
    assert_eq!(*third.await.unwrap(), answer(1.0));
}

#[tokio::test]
async fn an_interactive_document_does_not_wait_for_one_of_the_bulk_lane() {
    let cache = cache(10_000);
    let mut bulk = slow(&cache, Lane::Bulk);
    assert!(poll(&mut bulk).is_pending());
    assert_eq!(*quick(&cache, Lane::Interactive, 2.0).await.unwrap(), answer(2.0));
}
