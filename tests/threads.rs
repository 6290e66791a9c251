//! The worker threads. Alone in its process, since they are set up once.

#![allow(clippy::expect_used)]

use tasnif::nn::{NnError, configure_threads, default_threads};

#[test]
fn threads_are_set_up_once_and_a_second_time_is_an_error() {
    configure_threads(default_threads()).expect("nothing has run before");
    let again = configure_threads(7);
    assert!(matches!(again, Err(NnError::Threads { threads: 7, .. })), "{again:?}");
}
