//! How many tokens a text will have, before it is tokenised: an overloaded server refuses most of
//! what it is asked, and to tokenise that first would take time from what it answers.

use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes to a token of the first text. Arabic news has 5 to 8.
const FIRST: f32 = 7.0;
/// What other texts can make it, at least and at most: odd ones of one client must not spoil it for
/// all.
const LEAST: f32 = 4.0;
const MOST: f32 = 10.0;
/// How far one text moves it.
const WEIGHT: f32 = 1.0 / 16.0;

/// Guesses by the texts before.
#[derive(Debug)]
pub(super) struct TokenGuess {
    /// The bits of the mean of bytes to a token.
    bytes: AtomicU32,
    /// The largest guess. A queue that is all but empty has room for it, so that no text is refused
    /// for ever because what it seems is more than it is.
    most: usize,
}

impl TokenGuess {
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: AtomicU32::new(FIRST.to_bits()), most }
    }

    /// Tokens of a text of `bytes`.
    pub(super) fn tokens(&self, bytes: usize) -> usize {
        let tokens = bytes as f32 / f32::from_bits(self.bytes.load(Ordering::Relaxed));
        (tokens as usize).min(self.most)
    }

    /// Learns from a text of `bytes`, all of which took `tokens`. Those with more tokens than are
    /// guessed teach nothing.
    pub(super) fn learn(&self, bytes: usize, tokens: usize) {
        if !(1..=self.most).contains(&tokens) {
            return;
        }
        let found = (bytes as f32 / tokens as f32).clamp(LEAST, MOST);
        // Of two at once one may be lost.
        let mean = f32::from_bits(self.bytes.load(Ordering::Relaxed));
        let mean = mean + (found - mean) * WEIGHT;
        self.bytes.store(mean.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_texts_within_bounds() {
        let guess = TokenGuess::new(500);
        assert_eq!(guess.tokens(700), 100);
        for _ in 0..100 {
            guess.learn(400, 100);
        }
        assert!((172..=175).contains(&guess.tokens(700)), "{}", guess.tokens(700));
        // Nothing that is over the largest guess, or is empty.
        guess.learn(1_000_000, 501);
        guess.learn(1_000_000, 0);
        assert!((172..=175).contains(&guess.tokens(700)));
        for _ in 0..200 {
            guess.learn(100, 100);
        }
        assert!((24..=25).contains(&guess.tokens(100)));
        assert_eq!(guess.tokens(usize::MAX), 500);
        for _ in 0..200 {
            guess.learn(1_000_000, 1);
        }
        assert!((100..=101).contains(&guess.tokens(1_000)));
    }
}
