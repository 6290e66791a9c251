//! Who may hold how much, and who waits for room.

use proptest::prelude::*;

use super::*;

fn framed(lengths: &[usize]) -> Vec<u8> {
    let frame = |length: &usize| {
        let mut frame = vec![0];
        frame.extend((*length as u32).to_be_bytes());
        frame.extend(vec![7; *length]);
        frame
    };
    lengths.iter().flat_map(frame).collect()
}

fn budget(limit: usize) -> Arc<Budget> {
    Arc::new(Budget::new(limit, HeldBytes::default()))
}

fn call(budget: &Arc<Budget>, client: &str) -> Received {
    Received::new(Arc::clone(budget), client.into())
}

#[test]
fn what_a_call_has_received_counts_until_it_ends() {
    let budget = budget(200);
    let bytes = framed(&[50, 40]);
    let mut unary = call(&budget, "a");
    unary.add(&bytes[..70], false).unwrap();
    assert_eq!(unary.hold.bytes, 70);
    let mut stream = call(&budget, "b");
    stream.add(&bytes[..70], true).unwrap();
    assert_eq!(stream.hold.bytes, 15, "the first message is all there");
    stream.add(&bytes[70..], true).unwrap();
    assert_eq!(stream.hold.bytes, 0);
    drop(unary);
    assert_eq!(budget.held.lock().all, Bytes::default());
    assert!(budget.held.lock().clients.is_empty());
}

#[test]
fn a_compressed_message_counts_as_what_is_in_it() {
    let budget = budget(400);
    let message = framed(&[15]);
    let mut unary = call(&budget, "a");
    unary.add(&message, false).unwrap();
    unary.decompressed(message.len(), 150).unwrap();
    assert_eq!(unary.hold.bytes, 150);
    let mut other = call(&budget, "a");
    other.add(&message, false).unwrap();
    assert!(other.decompressed(message.len(), 51).is_err());
    // One of a stream is counted by its document.
    let mut stream = call(&budget, "a");
    stream.add(&message, true).unwrap();
    stream.decompressed(message.len(), 150).unwrap();
    assert_eq!(stream.hold.bytes, 0);
}

#[test]
fn one_client_may_hold_half_and_all_no_more_than_there_is() {
    let budget = budget(200);
    let hundred = framed(&[95]);
    let mut first = call(&budget, "a");
    first.add(&hundred, false).unwrap();
    let refused = call(&budget, "a").add(&hundred[..1], false);
    assert!(matches!(refused, Err(CallError::NoRoom { limit: 200, .. })));
    let mut other = call(&budget, "b");
    other.add(&hundred, false).unwrap();
    assert!(call(&budget, "c").add(&hundred[..1], false).is_err());
    drop(first);
    assert!(call(&budget, "c").add(&hundred, false).is_ok());
}

#[tokio::test]
async fn a_document_waits_for_room() {
    let budget = budget(200);
    let wait = |bytes| Hold::wait(Arc::clone(&budget), "a".into(), bytes);
    let held = wait(100).await;
    let mut waiting = std::pin::pin!(wait(1_000));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("there is no room"),
        () = std::future::ready(()) => {}
    }
    drop(held);
    assert_eq!(waiting.await.bytes, 100);
}

#[tokio::test]
async fn a_large_document_is_not_overtaken_by_small_ones() {
    let budget = budget(120_000);
    let order: Arc<Mutex<Vec<usize>>> = Arc::default();
    let begin = |bytes| {
        let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
        tokio::spawn(async move {
            let hold = Hold::wait(budget, "a".into(), bytes).await;
            order.lock().push(bytes);
            hold
        })
    };
    let held = [begin(24_000).await.unwrap(), begin(24_001).await.unwrap()];
    // There would be room for the small ones at once.
    let waiting = [begin(54_000), begin(6_600), begin(6_601)];
    tokio::task::yield_now().await;
    assert_eq!(*order.lock(), [24_000, 24_001]);
    drop(held);
    for task in waiting {
        drop(task.await.unwrap());
    }
    assert_eq!(*order.lock(), [24_000, 24_001, 54_000, 6_600, 6_601]);
    assert!(budget.held.lock().waiting.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_get_their_turn() {
    let budget = budget(200);
    let wait = |client: &str, bytes| Hold::wait(Arc::clone(&budget), client.into(), bytes);
    let held = [wait("a", 100).await, wait("b", 100).await];
    let (mut tasks, mut cancelled) = (Vec::new(), Vec::new());
    for round in 0..20 {
        for client in ["a", "b", "c"] {
            let hold = wait(client, 30 + round);
            let task = tokio::spawn(async { drop(hold.await) });
            if round % 3 == 1 { cancelled.push(task) } else { tasks.push(task) }
        }
    }
    tokio::task::yield_now().await;
    for task in cancelled {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    drop(held);
    for task in tasks {
        task.await.unwrap();
    }
    let held = budget.held.lock();
    assert_eq!((held.all, held.clients.len(), held.waiting.len()), (Bytes::default(), 0, 0));
}

#[test]
fn an_answer_takes_the_place_of_its_message_and_of_new_ones() {
    let budget = budget(200);
    let message = framed(&[35]);
    let begin = |client| {
        let mut call = call(&budget, client);
        call.add(&message, false).map(|_| call)
    };
    let (mut first, mut second) = (begin("a").unwrap(), begin("a").unwrap());
    let unread = first.answer(Kind::Answer, 70).unwrap();
    assert_eq!(budget.held.lock().all, Bytes { received: 40, answers: 70 });
    // More is not taken on, what was is answered as far as there is room, and a stream in any
    // case.
    assert!(begin("a").is_err());
    let other = begin("b").unwrap();
    assert!(second.answer(Kind::Answer, 31).is_err());
    let outcomes = second.answer(Kind::Outcomes, 90).unwrap();
    assert_eq!(budget.held.lock().all, Bytes { received: 40, answers: 160 });
    drop((unread, outcomes, other));
    // One that is over the limit by itself is the only one.
    let huge = begin("a").unwrap().answer(Kind::Answer, 5_000).unwrap();
    assert_eq!(budget.held.lock().all, Bytes { received: 0, answers: 100 });
    drop(huge);
    assert!(budget.held.lock().clients.is_empty());
}

#[test]
fn nobody_is_taken_on_when_no_answer_has_room() {
    let budget = budget(200);
    let answer = |client| call(&budget, client).answer(Kind::Answer, 100).unwrap();
    let held = [answer("a"), answer("b")];
    assert!(call(&budget, "c").add(&[0], false).is_err());
    drop(held);
    assert!(call(&budget, "c").add(&[0], false).is_ok());
}

#[test]
fn answers_that_are_kept_for_the_last_have_their_room_before() {
    let budget = budget(9 * OUTCOME_BYTES);
    let mut batch = call(&budget, "a");
    batch.add(&framed(&[95]), false).unwrap();
    batch.expect_answers(3).unwrap();
    assert_eq!(batch.hold.bytes, 3 * OUTCOME_BYTES);
    assert!(call(&budget, "a").expect_answers(2).is_err());
    drop(batch);
    // All that there is for one client, if they are more.
    call(&budget, "a").expect_answers(1_000).unwrap();
}

proptest! {
    #[test]
    fn however_it_is_cut_a_stream_ends_with_nothing_held(
        lengths in prop::collection::vec(0_usize..40, 0..6),
        cut in 1_usize..20,
    ) {
        let budget = budget(1_000);
        let mut stream = call(&budget, "a");
        for piece in framed(&lengths).chunks(cut) {
            stream.add(piece, true).unwrap();
            prop_assert!(stream.hold.bytes < 45);
            prop_assert_eq!(budget.held.lock().all.received, stream.hold.bytes);
        }
        prop_assert_eq!(stream.hold.bytes, 0);
    }
}
