//! A text under normalisation, each character of which remembers where in the
//! original it came from.

use std::ops::Range;

use regex::Regex;

/// Where in the original a character came from: a range of Unicode scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// The smallest span over both.
    pub(super) fn join(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A text and the span of each of its characters. Both the starts and the ends
/// of the spans never decrease from one character to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapped {
    text: String,
    spans: Vec<Span>,
}

impl Mapped {
    pub(super) fn new(original: &str) -> Self {
        let spans = (0u32..).zip(original.chars()).map(|(at, _)| Span { start: at, end: at + 1 });
        Self { spans: spans.collect(), text: original.to_owned() }
    }

    pub(super) fn with_capacity_of(other: &Self) -> Self {
        Self {
            text: String::with_capacity(other.text.len()),
            spans: Vec::with_capacity(other.spans.len()),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (char, Span)> + '_ {
        self.text.chars().zip(self.spans.iter().copied())
    }

    pub(super) fn push(&mut self, c: char, span: Span) {
        self.text.push(c);
        self.spans.push(span);
    }

    pub(super) fn pop(&mut self) -> Option<(char, Span)> {
        self.text.pop().zip(self.spans.pop())
    }

    pub(super) fn last(&self) -> Option<(char, Span)> {
        self.text.chars().next_back().zip(self.spans.last().copied())
    }

    /// Removes the first `bytes` bytes, which end at a character's border.
    pub(super) fn cut_start(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let chars = self.text.get(..bytes).map_or(0, |head| head.chars().count());
        self.text.drain(..bytes);
        self.spans.drain(..chars);
    }

    /// Rewrites every match of `regex`: `rewrite` gets the matched characters with
    /// their spans and pushes what takes their place.
    pub(super) fn rewrite(self, regex: &Regex, rewrite: impl Fn(&Matched<'_>, &mut Self)) -> Self {
        let mut matches = regex.find_iter(&self.text).peekable();
        if matches.peek().is_none() {
            drop(matches);
            return self;
        }
        let mut out = Self::with_capacity_of(&self);
        let mut spans = self.spans.as_slice();
        let mut take = |text: &str| {
            let (head, tail) = spans.split_at(text.chars().count().min(spans.len()));
            spans = tail;
            head
        };
        let mut copied = 0;
        for found in matches {
            let before = self.text.get(copied..found.start()).unwrap_or_default();
            out.extend(before, take(before));
            rewrite(&Matched { text: found.as_str(), spans: take(found.as_str()) }, &mut out);
            copied = found.end();
        }
        let rest = self.text.get(copied..).unwrap_or_default();
        out.extend(rest, take(rest));
        out
    }

    fn extend(&mut self, text: &str, spans: &[Span]) {
        self.text.push_str(text);
        self.spans.extend_from_slice(spans);
    }

    pub(super) fn finish(self) -> Normalized {
        let mut starts: Vec<u32> = Vec::with_capacity(self.spans.len());
        starts
            .extend(self.text.char_indices().map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)));
        Normalized { text: self.text, starts, spans: self.spans }
    }
}

/// A stretch of a text that a pattern matched.
pub(super) struct Matched<'a> {
    text: &'a str,
    spans: &'a [Span],
}

impl Matched<'_> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (char, Span)> + '_ {
        self.text.chars().zip(self.spans.iter().copied())
    }

    /// The span of the whole match.
    pub(super) fn span(&self) -> Span {
        let spans = self.spans.iter().copied();
        spans.reduce(Span::join).unwrap_or(Span { start: 0, end: 0 })
    }
}

/// A normalised text that knows where in the original each part came from.
#[derive(Clone, Debug, Default)]
pub struct Normalized {
    text: String,
    /// First byte of each character of `text`.
    starts: Vec<u32>,
    /// Where each character came from.
    spans: Vec<Span>,
}

impl Normalized {
    /// The normalised text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The Unicode scalars of the original from which the bytes `bytes` of the
    /// normalised text came. A later range never starts or ends before an earlier
    /// one. Bytes past the end count as the end.
    pub fn original_range(&self, bytes: Range<usize>) -> Range<usize> {
        let char_at = |byte: usize| self.starts.partition_point(|&start| (start as usize) < byte);
        let end = char_at(bytes.end);
        // A byte inside a character belongs to it, so the start is rounded down.
        let first = self.starts.partition_point(|&start| (start as usize) <= bytes.start);
        let first = first.saturating_sub(1);
        if bytes.start >= bytes.end {
            let at = match self.spans.get(char_at(bytes.start)) {
                Some(span) => span.start,
                None => self.spans.last().map_or(0, |span| span.end),
            };
            return at as usize..at as usize;
        }
        match (self.spans.get(first), self.spans.get(end.saturating_sub(1))) {
            (Some(first), Some(last)) => first.start as usize..last.end.max(first.end) as usize,
            _ => 0..0,
        }
    }
}
