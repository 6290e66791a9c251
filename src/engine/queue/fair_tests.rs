//! The order between clients.

use super::fair::FairLine;
use super::tests::*;
use super::{Batch, JobId};
use crate::engine::job::{ClientId, Job};

/// Runs `batches` batches and returns the tags of their sequences.
fn run(f: &mut Fixture, batches: usize) -> Vec<u32> {
    let run = |_| {
        let batch = f.batch();
        let tags = tags(&batch);
        f.finish(batch);
        tags
    };
    (0..batches).flat_map(run).collect()
}

#[test]
fn one_client_is_served_in_the_order_of_arrival() {
    let mut f = fixture(|config| config.max_queued_tokens = 1_000);
    let mut answers = Vec::new();
    for (tag, lengths) in [(0, vec![3, 9, 1]), (1, vec![1]), (2, vec![10, 10]), (3, vec![2])] {
        answers.push(f.submit(interactive(tag, &lengths)));
    }
    let (middle, _answer) = f.submit(interactive(9, &[7]));
    answers.extend([4, 5].map(|tag| f.submit(interactive(tag, &[5]))));
    f.queue.cancel(middle, f.now);
    assert_eq!(run(&mut f, 7), [0, 0, 0, 1, 2, 2, 3, 4, 5]);
    assert!(f.queue.is_empty());
}

#[test]
fn a_flood_of_one_client_does_not_hold_up_another() {
    for make in [interactive, bulk] {
        let mut f = fixture(|config| config.max_queued_tokens = 10_000);
        let _flood: Vec<_> = (0..400).map(|_| f.submit(of("flood", make(9, &[10])))).collect();
        assert_eq!(run(&mut f, 2), [9, 9]);
        let _two = [1, 2].map(|tag| f.submit(of("other", make(tag, &[5]))));
        assert_eq!(run(&mut f, 3), [1, 2, 9, 9]);
    }
}

#[test]
fn a_long_job_of_one_client_does_not_hold_up_another() {
    let mut f = fixture(|config| config.max_queued_tokens = 1_000);
    let _long = f.submit(of("long", interactive(9, &[10; 50])));
    assert_eq!(run(&mut f, 1), [9]);
    let _short = f.submit(of("short", interactive(1, &[10])));
    assert_eq!(run(&mut f, 3), [1, 9, 9]);
}

#[test]
fn clients_with_work_get_equal_shares_of_tokens_whatever_the_size_of_their_jobs() {
    let mut f = fixture(|config| config.max_queued_tokens = 10_000);
    let mut answers = Vec::new();
    for _ in 0..300 {
        answers.push(f.submit(of("small", interactive(2, &[2]))));
    }
    for _ in 0..30 {
        answers.push(f.submit(of("large", interactive(10, &[10]))));
        answers.push(f.submit(of("windows", interactive(5, &[5, 5]))));
    }
    let order = run(&mut f, 60);
    let tokens: u32 = order.iter().sum();
    for tag in [2, 5, 10] {
        let own: u32 = order.iter().filter(|&&other| other == tag).sum();
        assert!(own.abs_diff(tokens / 3) <= 10, "{tag}: {own} of {tokens}");
    }
}

#[test]
fn a_client_that_was_idle_has_saved_nothing_up() {
    let mut f = fixture(|config| config.max_queued_tokens = 10_000);
    let _before = f.submit(of("idle", interactive(1, &[10])));
    let mut answers: Vec<_> =
        (0..60).map(|_| f.submit(of("busy", interactive(9, &[10])))).collect();
    run(&mut f, 41);
    answers.extend((0..10).map(|_| f.submit(of("idle", interactive(1, &[10])))));
    let order = run(&mut f, 10);
    let own = order.iter().filter(|tag| **tag == 1).count();
    assert_eq!(own, 5, "half, though it has had 1 batch of 41: {order:?}");
}

#[test]
fn a_client_pays_only_for_what_ran() {
    let mut f = fixture(|config| config.max_queued_tokens = 10_000);
    let _flood: Vec<_> = (0..50).map(|_| f.submit(of("flood", interactive(9, &[10])))).collect();
    for _ in 0..10 {
        let (leaves, _answer) = f.submit(of("other", interactive(1, &[10; 10])));
        f.queue.cancel(leaves, f.now);
    }
    run(&mut f, 1);
    let _stays = f.submit(of("other", interactive(1, &[10])));
    assert_eq!(run(&mut f, 2), [1, 9]);
}

#[test]
fn new_clients_one_after_another_do_not_hold_up_one_that_stays() {
    let mut f = fixture(|config| config.max_queued_tokens = 10_000);
    let _stays = f.submit(of("stays", interactive(9, &[10, 10])));
    let mut answers = Vec::new();
    let mut order = Vec::new();
    for index in 0..20 {
        // There is always one that has never been served.
        answers.push(f.submit(of(&index.to_string(), interactive(1, &[10]))));
        order.extend(run(&mut f, 1));
    }
    let last = order.iter().rposition(|tag| *tag == 9).unwrap();
    assert!(last < 8, "{order:?}");
}

#[test]
fn waiting_jobs_of_a_flood_do_not_hold_up_those_of_another_client() {
    let mut f = fixture(|_| ());
    let flood = |f: &mut Fixture| f.submit(of("flood", waits(interactive(9, &[10]))));
    let _flood: Vec<_> = (0..40).map(|_| flood(&mut f)).collect();
    assert_eq!(f.queue.stats().waiting_jobs, 30);
    let (_, mut first) = f.submit(of("other", waits(interactive(1, &[10]))));
    assert_eq!(run(&mut f, 3), [9, 9, 1], "in at the first room, and next then");
    assert!(first.try_recv().is_ok());
}

#[test]
fn a_client_that_has_nothing_open_is_forgotten() {
    let mut f = fixture(|_| ());
    let forgotten = |f: &Fixture| {
        f.queue
            .lanes
            .each()
            .iter()
            .all(|lane| lane.queued.remembered() + lane.waiting.remembered() == 0)
    };
    let mut ids: Vec<JobId> = Vec::new();
    for client in 0..30 {
        let job = of(&client.to_string(), waits(interactive(client, &[10])));
        ids.push(f.submit(job).0);
    }
    let batches: [Batch; 3] = [f.batch(), f.batch(), f.batch()];
    for id in ids.drain(10..) {
        f.queue.cancel(id, f.now);
    }
    assert!(!forgotten(&f));
    for batch in batches {
        f.finish(batch);
    }
    run(&mut f, 7);
    assert!(f.queue.is_empty() && forgotten(&f));

    let (only, _answer) = f.submit(of("leaves", interactive(1, &[10])));
    f.queue.cancel(only, f.now);
    assert!(forgotten(&f));
}

#[test]
fn clients_are_remembered_no_longer_than_their_debts() {
    let mut line = FairLine::default();
    let stays = ClientId::new("stays");
    let mut next = 0..;
    let mut id = || JobId(next.next().unwrap());
    line.push(&stays, id(), 1_000_000);
    let mut most = 0;
    for index in 0..1_000_u32 {
        line.push(&ClientId::new(&index.to_string()), id(), 10);
        for _ in 0..2 {
            let head = line.first().unwrap();
            line.start(head.tag);
            line.serve(&head.client, 10, head.client != stays);
        }
        most = most.max(line.remembered());
    }
    assert!(most <= 4, "{most}");
}

#[test]
fn jobs_of_the_default_are_of_the_client_without_a_name() {
    assert_eq!(Job::default().client, ClientId::new(""));
    assert_eq!(ClientId::new("a").as_str(), "a");
}
