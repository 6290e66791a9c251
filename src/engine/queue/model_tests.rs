//! Whatever happens in whatever order: the counts are right, the limits hold, and
//! every job is answered exactly once.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::engine::job::{Admission, ClientId, Lane};

const MAX_BATCH: usize = 16;
const MAX_QUEUED: usize = 60;
const MAX_WAITING: usize = 50;
const MAX_CLIENT: usize = 40;
const CLIENTS: [&str; 3] = ["", "a", "b"];

#[derive(Clone, Debug)]
enum Op {
    Submit {
        lengths: Vec<usize>,
        bulk: bool,
        wait: bool,
        client: usize,
        deadline_ms: Option<u64>,
    },
    Cancel(prop::sample::Index),
    Form,
    /// Lets a running batch pause for urgent work.
    Pause(prop::sample::Index),
    /// Ends a running batch, or the urgent one within it: well, or with an error for its
    /// first job.
    Finish(prop::sample::Index, bool),
    Pass(u64),
    Drain,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let lengths = prop::collection::vec(1..=20_usize, 1..4);
    let deadline = prop::option::weighted(0.3, 1..30_u64);
    let op = prop_oneof![
        5 => (lengths, any::<bool>(), any::<bool>(), 0..CLIENTS.len(), deadline).prop_map(
            |(lengths, bulk, wait, client, deadline_ms)| {
                Op::Submit { lengths, bulk, wait, client, deadline_ms }
            }
        ),
        1 => any::<prop::sample::Index>().prop_map(Op::Cancel),
        4 => Just(Op::Form),
        2 => any::<prop::sample::Index>().prop_map(Op::Pause),
        4 => (any::<prop::sample::Index>(), prop::bool::weighted(0.2))
            .prop_map(|(index, fails)| Op::Finish(index, fails)),
        2 => (0..10_u64).prop_map(Op::Pass),
    ];
    let op = prop_oneof![200 => op, 1 => Just(Op::Drain)];
    prop::collection::vec(op, 1..120)
}

/// A job as its caller sees it.
struct Caller {
    id: JobId,
    tag: u32,
    sequences: usize,
    answer: oneshot::Receiver<Result<Output, EngineError>>,
    cancelled: bool,
    answers: usize,
}

/// A batch that runs, and the urgent one that runs within it.
struct Worker {
    batch: Batch,
    urgent: Option<Batch>,
    /// Tokens of all that have.
    urgent_tokens: usize,
}

fn check_batch(queue: &Queue, batch: &Batch, limit: usize) {
    let tokens = batch.pieces.iter().map(Piece::tokens).sum::<usize>();
    let sequences = batch.pieces.iter().map(|piece| piece.sequences.len()).sum::<usize>();
    assert_eq!(batch.running.tokens, tokens);
    assert!(tokens <= limit || sequences == 1);
    let lanes = batch.pieces.iter().filter_map(|piece| queue.jobs.get(&piece.job));
    assert!(lanes.into_iter().all(|job| job.lane == batch.running.lane));
}

/// Whether job `id` is in a lane.
fn queued(queue: &Queue, id: JobId) -> bool {
    queue.lanes.each().into_iter().any(|lane| lane.queued.ids().any(|other| other == id))
}

fn tokens<'a>(jobs: impl IntoIterator<Item = &'a Entry>) -> usize {
    jobs.into_iter().flat_map(|job| &job.rest).map(Vec::len).sum()
}

fn check_line(queue: &Queue, line: &FairLine) {
    let jobs: Vec<&Entry> = line.ids().map(|id| &queue.jobs[&id]).collect();
    assert_eq!((line.len(), line.tokens()), (jobs.len(), tokens(jobs.iter().copied())));
    for client in CLIENTS.map(ClientId::new) {
        let own = jobs.iter().copied().filter(|job| job.client == client);
        assert_eq!(line.tokens_of(&client), tokens(own));
    }
    let tags: Vec<_> = line.heads().map(|head| head.tag).collect();
    assert!(tags.is_sorted() && tags.len() == line.clients());
    assert!(line.remembered() <= CLIENTS.len());
}

fn check_counts(queue: &Queue) {
    for (lane, limit) in [(Lane::Interactive, MAX_QUEUED), (Lane::Bulk, MAX_QUEUED / 4 * 3)] {
        let state = queue.lanes.get(lane);
        check_line(queue, &state.queued);
        check_line(queue, &state.waiting);
        let queued: Vec<&Entry> = state.queued.ids().map(|id| &queue.jobs[&id]).collect();
        assert_eq!(state.queued_sequences, queued.iter().map(|job| job.rest.len()).sum::<usize>());
        assert!(queued.iter().all(|job| job.lane == lane && !job.rest.is_empty()));
        assert!(state.queued.tokens() <= limit);
        assert!(state.waiting.tokens() <= MAX_WAITING || state.waiting.len() == 1);
        // A client's jobs get in in the order of arrival.
        for waiting in state.waiting.ids() {
            let client = &queue.jobs[&waiting].client;
            let own = state.queued.ids().filter(|id| queue.jobs[id].client == *client);
            assert!(own.into_iter().all(|id| id < waiting));
        }
    }
    assert!(queue.queued_tokens() <= MAX_QUEUED);
    // Nobody waits while there is room: no worker would be told when it is taken.
    for lane in [Lane::Interactive, Lane::Bulk] {
        let head = queue.head(lane);
        assert!(head.is_none_or(|(_, head)| !queue.has_room(&head)));
    }
    assert!(queue.has_queued() || queue.stats().waiting_jobs == 0);
    for client in CLIENTS.map(ClientId::new) {
        let jobs =
            |line: &FairLine| line.ids().filter(|id| queue.jobs[id].client == client).count();
        let [interactive, bulk] = queue.lanes.each().map(|lane| &lane.queued);
        let [i, b] = [interactive, bulk].map(|line| line.tokens_of(&client));
        assert!(i <= MAX_CLIENT || jobs(interactive) == 1);
        assert!(b <= MAX_CLIENT / 4 * 3 || jobs(bulk) == 1);
        assert!(i + b <= MAX_CLIENT || jobs(interactive) == 1 || jobs(bulk) == 1);
        for lane in queue.lanes.each() {
            assert!(lane.waiting.tokens_of(&client) <= MAX_CLIENT || jobs(&lane.waiting) == 1);
        }
    }
    assert_eq!(queue.deadlines.len(), queue.jobs.values().filter(|j| j.deadline.is_some()).count());
    let idle = |lane: &LaneState| lane.queued.is_empty() && lane.running_batches == 0;
    assert!(
        queue.lanes.each().into_iter().all(|lane| !idle(lane) || lane.queued.remembered() == 0)
    );
}

/// Ends a batch: one of urgent work that runs within `outer`, or another.
fn finish(queue: &mut Queue, outer: Option<&mut Running>, batch: Batch, fails: bool, now: Instant) {
    let ran = batch.pieces.into_iter().enumerate().map(|(index, piece)| {
        let rows: Vec<f32> = (0..piece.sequences.len())
            .flat_map(|n| [piece.sequences[n][0] as f32, (piece.first + n) as f32])
            .collect();
        let failed = fails && index == 0;
        (piece, if failed { Err(EngineError::WorkerPanicked) } else { Ok(rows) })
    });
    match outer {
        None => queue.finish(batch.running, ran.collect(), now),
        Some(outer) => queue.finish_urgent(outer, batch.running, ran.collect(), now),
    }
}

fn collect(callers: &mut [Caller]) {
    for caller in callers {
        let Ok(result) = caller.answer.try_recv() else { continue };
        caller.answers += 1;
        if let Ok(output) = result {
            let expected: Vec<f32> =
                (0..caller.sequences).flat_map(|n| [caller.tag as f32, n as f32]).collect();
            assert_eq!(output.rows.as_slice(), expected);
            assert!(output.timing.batch_tokens > 0);
        }
    }
}

fn run(ops: Vec<Op>) {
    let config = EngineConfig {
        max_batch_tokens: MAX_BATCH,
        max_queued_tokens: MAX_QUEUED,
        max_queued_tokens_per_client: MAX_CLIENT,
        max_waiting_tokens: MAX_WAITING,
        max_interactive_run: 2,
        ..Default::default()
    };
    let mut queue = Queue::new(config, 2);
    let mut now = Instant::now();
    let mut callers: Vec<Caller> = Vec::new();
    let mut running: Vec<Worker> = Vec::new();
    for (tag, op) in ops.into_iter().enumerate() {
        let tag = tag as u32;
        match op {
            Op::Submit { lengths, bulk, wait, client, deadline_ms } => {
                let lane = if bulk { Lane::Bulk } else { Lane::Interactive };
                let job = Job {
                    sequences: lengths.iter().map(|length| vec![tag; *length]).collect(),
                    client: ClientId::new(CLIENTS[client]),
                    lane,
                    admission: if wait { Admission::Wait } else { Admission::Reject },
                    deadline: deadline_ms.map(|ms| now + Duration::from_millis(ms)),
                };
                let tokens: usize = lengths.iter().sum();
                let own = if bulk { 0 } else { queue.lanes.interactive.queued.tokens() };
                let nobody_waits = queue.lanes.interactive.waiting.is_empty();
                let id = ClientId::new(CLIENTS[client]);
                let [of_client, of_bulk] = queue.lanes.each().map(|l| l.queued.tokens_of(&id));
                let fits = of_client == 0 || of_client + of_bulk + tokens <= MAX_CLIENT;
                let drains = queue.drain.is_some();
                let must_enter =
                    !drains && !bulk && nobody_waits && fits && own + tokens <= MAX_QUEUED / 4;
                let (reply, answer) = oneshot::channel();
                match queue.submit(job, reply, now) {
                    Ok(id) => {
                        assert!(!must_enter || queued(&queue, id));
                        let sequences = lengths.len();
                        let (cancelled, answers) = (false, 0);
                        callers.push(Caller { id, tag, sequences, answer, cancelled, answers });
                    }
                    Err(error) => {
                        assert_eq!(drains, error == DRAINING);
                        let late = matches!(error, EngineError::WouldExpire { .. });
                        assert!(!late || (deadline_ms.is_some() && !wait));
                        assert!(late || !must_enter, "refused within the last quarter: {error}");
                        let line = &queue.lanes.get(lane).waiting;
                        let over = |held: usize, limit| held > 0 && held + tokens > limit;
                        let too_long = over(line.tokens(), MAX_WAITING)
                            || over(line.tokens_of(&id), MAX_CLIENT);
                        let too_large = matches!(error, EngineError::TooLarge { .. });
                        assert!(!wait || drains || too_large || too_long, "{error}");
                    }
                }
            }
            Op::Cancel(index) if !callers.is_empty() => {
                let caller = index.get_mut(&mut callers);
                caller.cancelled = true;
                queue.cancel(caller.id, now);
            }
            Op::Form => {
                if let Step::Run(batch) = queue.next(now) {
                    check_batch(&queue, &batch, MAX_BATCH);
                    running.push(Worker { batch, urgent: None, urgent_tokens: 0 });
                }
            }
            Op::Pause(index) if !running.is_empty() => {
                let worker = index.get_mut(&mut running);
                if worker.urgent.is_none()
                    && let Some(mut urgent) = queue.next_urgent(&mut worker.batch.running, now)
                {
                    check_batch(&queue, &urgent, MAX_BATCH / 4);
                    worker.urgent_tokens += urgent.running.tokens;
                    assert_eq!(urgent.running.lane, Lane::Interactive);
                    assert!(queue.next_urgent(&mut urgent.running, now).is_none());
                    assert!(worker.urgent_tokens <= worker.batch.running.tokens);
                    worker.urgent = Some(urgent);
                }
            }
            Op::Finish(index, fails) if !running.is_empty() => {
                let worker = index.get_mut(&mut running);
                if let Some(urgent) = worker.urgent.take() {
                    finish(&mut queue, Some(&mut worker.batch.running), urgent, fails, now);
                } else {
                    let worker = running.swap_remove(index.index(running.len()));
                    finish(&mut queue, None, worker.batch, fails, now);
                }
            }
            Op::Drain => queue.begin_drain(),
            Op::Pass(ms) => now += Duration::from_millis(ms),
            Op::Cancel(_) | Op::Pause(_) | Op::Finish(..) => {}
        }
        check_counts(&queue);
        collect(&mut callers);
    }
    // Let everything that is left run.
    for worker in &mut running {
        if let Some(urgent) = worker.urgent.take() {
            finish(&mut queue, Some(&mut worker.batch.running), urgent, false, now);
        }
    }
    collect(&mut callers);
    let mut running: Vec<Batch> = running.into_iter().map(|worker| worker.batch).collect();
    while !queue.is_empty() {
        match queue.next(now) {
            Step::Run(batch) => running.push(batch),
            _ if queue.is_empty() => {} // the last jobs have expired
            _ => finish(&mut queue, None, running.pop().expect("no job is stuck"), false, now),
        }
        check_counts(&queue);
        collect(&mut callers);
    }
    for batch in running {
        finish(&mut queue, None, batch, false, now);
    }
    for caller in &callers {
        assert!(caller.answers == 1 || (caller.answers == 0 && caller.cancelled));
    }
    let report = queue.drain_report();
    assert_eq!(report.finished, queue.drain.as_ref().map_or(0, |drain| drain.accepted));
    let stats = EngineStats { tokens_per_second: 0.0, ..queue.stats() };
    let EngineStats { finished_sequences, finished_tokens, batches, preemptions, .. } = stats;
    let counted =
        EngineStats { finished_sequences, finished_tokens, batches, ..Default::default() };
    let zero = EngineStats { preemptions, ..counted };
    assert_eq!(stats, zero);
}

proptest! {
    // The same cases in every run.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::with_cases(2_000)
    })]

    #[test]
    fn every_job_is_answered_once_and_every_count_is_right(ops in ops()) {
        run(ops);
    }
}
