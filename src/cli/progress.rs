//! How far a run is: a bar on a terminal, a line now and then elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::archive::{Progress, Snapshot};

/// Between two looks at the counters.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// Speed is that of the last so many seconds.
const SPEED_OVER: Duration = Duration::from_secs(60);

/// Shows the progress of a run.
pub(super) struct Shown {
    quiet: bool,
    ended: AtomicBool,
    began: Instant,
}

impl Shown {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, ended: AtomicBool::new(false), began: Instant::now() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What `work` gives, with `progress` shown meanwhile, from a thread of its own.
    pub(super) fn during<T>(&self, progress: &Progress, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let showing = scope.spawn(|| self.run(progress));
            // Also if the work panics, or the scope would wait for the thread for ever.
            let _ended = Ended { ended: &self.ended, shows: showing.thread().clone() };
            work()
        })
    }

    fn run(&self, progress: &Progress) {
        if self.quiet {
            return;
        }
        let bar = std::io::stderr().is_terminal().then(ProgressBar::no_length);
        let mut speed = Speed::default();
        let mut last_line = Instant::now();
        while !self.ended.load(Ordering::Acquire) {
            let now = progress.snapshot();
            speed.look(now);
            match &bar {
                Some(bar) => show(bar, &now, &speed),
                None if last_line.elapsed() >= LINE_EVERY => {
                    last_line = Instant::now();
                    tracing::info!("{}", speed.line(&now));
                }
                None => {}
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

/// Tells the thread that shows, when it is dropped, that the work has ended.
struct Ended<'a> {
    ended: &'a AtomicBool,
    shows: Thread,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.shows.unpark();
    }
}

fn show(bar: &ProgressBar, now: &Snapshot, speed: &Speed) {
    let template = if now.total_bytes > 0 { "{bar:24} {percent:>3} %  {msg}" } else { "{msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
    bar.set_length(now.total_bytes.max(1));
    bar.set_position(now.position.min(now.total_bytes));
    bar.set_message(speed.line(now));
}

/// The last looks at the counters.
#[derive(Default)]
struct Speed {
    looks: VecDeque<(Instant, Snapshot)>,
}

impl Speed {
    fn look(&mut self, now: Snapshot) {
        // Until the first row is written, a resumed run goes over what is done.
        if now.position == 0 {
            return;
        }
        let time = Instant::now();
        self.looks.push_back((time, now));
        while self.looks.len() > 2
            && self.looks.get(1).is_some_and(|(then, _)| time.duration_since(*then) > SPEED_OVER)
        {
            self.looks.pop_front();
        }
    }

    fn line(&self, now: &Snapshot) -> String {
        let mut line = format!("{} documents", HumanCount(now.resumed_rows + now.scored));
        if let Some((then, before)) = self.looks.front() {
            let seconds = then.elapsed().as_secs_f64().max(1e-3);
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            let documents = rate(now.scored, before.scored);
            let tokens = rate(now.tokens, before.tokens);
            line += &format!(" · {documents:.1} a second · {tokens:.0} tokens/s");
            let bytes = rate(now.position, before.position);
            let left = now.total_bytes.saturating_sub(now.position) as f64 / bytes;
            // The reader is a little ahead, so its end is not the end.
            if left.is_finite() && now.position < now.total_bytes {
                let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
                line += &format!(" · {} left", HumanDuration(left));
            }
        }
        line + &format!(" · {} rejected", HumanCount(now.rejected))
    }
}
