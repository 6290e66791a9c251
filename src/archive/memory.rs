//! The texts that have been seen, so that an equal one is not scored again.
//!
//! Texts are numbered in the order of the archive. One stage remembers the numbers
//! of the last ones and another, later on the way, their outcomes; both forget in
//! the same order, so a number that the first gives out is known to the second.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::output::Answer;
use super::row::Reject;

/// Stands for a title and a text: the first half of their SHA-256.
pub(super) type TextKey = [u8; 16];

/// What became of a text.
pub(super) type Outcome = Result<Arc<Answer>, Reject>;

pub(super) fn text_key(title: &str, text: &str) -> TextKey {
    let mut hash = Sha256::new();
    hash.update((title.len() as u64).to_le_bytes());
    hash.update(title);
    hash.update(text);
    let mut key = TextKey::default();
    key.iter_mut().zip(hash.finalize()).for_each(|(byte, from)| *byte = from);
    key
}

/// The numbers of the last texts.
pub(super) struct Keys {
    capacity: usize,
    numbers: HashMap<TextKey, u64>,
    order: VecDeque<TextKey>,
    next: u64,
}

impl Keys {
    /// Remembers `capacity` texts, the first being number `next`.
    pub(super) fn new(capacity: usize, next: u64) -> Self {
        Self { capacity, numbers: HashMap::new(), order: VecDeque::new(), next }
    }

    /// The number of an equal text before; if there is none, this one gets the next.
    pub(super) fn see(&mut self, key: TextKey) -> Option<u64> {
        if let Some(&number) = self.numbers.get(&key) {
            return Some(number);
        }
        if self.order.len() >= self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        self.numbers.insert(key, self.next);
        self.order.push_back(key);
        self.next += 1;
        None
    }
}

/// The outcomes of the last texts.
pub(super) struct Outcomes {
    capacity: usize,
    outcomes: VecDeque<Outcome>,
    /// Number of the first of them.
    first: u64,
}

impl Outcomes {
    /// Remembers `capacity` texts, the first being number `next`.
    pub(super) fn new(capacity: usize, next: u64) -> Self {
        Self { capacity, outcomes: VecDeque::new(), first: next }
    }

    /// The outcome of the next text.
    pub(super) fn push(&mut self, outcome: Outcome) {
        self.outcomes.push_back(outcome);
        if self.outcomes.len() > self.capacity {
            self.outcomes.pop_front();
            self.first += 1;
        }
    }

    /// The outcome of text `number`.
    pub(super) fn get(&self, number: u64) -> Option<&Outcome> {
        self.outcomes.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_forget_in_step() {
        let (mut keys, mut outcomes) = (Keys::new(2, 7), Outcomes::new(2, 7));
        let texts = ["a", "b", "a", "c", "b", "a", "c"];
        let mut seen = Vec::new();
        for text in texts {
            let number = keys.see(text_key("", text));
            match number {
                Some(number) => assert!(outcomes.get(number).is_some(), "{text} {number}"),
                None => outcomes.push(Ok(Arc::default())),
            }
            seen.push(number);
        }
        assert_eq!(seen, [None, None, Some(7), None, Some(8), None, Some(9)]);
        assert!(outcomes.get(7).is_none() && outcomes.get(11).is_none());
    }

    #[test]
    fn a_title_is_not_a_part_of_the_text() {
        assert_ne!(text_key("a", "b"), text_key("", "ab"));
    }
}
