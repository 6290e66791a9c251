//! How many attributes a tag has, while it is not yet whole.
//!
//! The tokenizer compares each attribute with all before it, and tells of a tag only at
//! its end. So the text that it is fed is followed here, as the standard says.
//!
//! <https://html.spec.whatwg.org/multipage/parsing.html#tag-open-state>

use html5ever::tokenizer::Token;

/// What the tokenizer has told of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    #[default]
    Nothing,
    /// Characters alone.
    Text,
    /// A tag, a comment or a document type.
    Markup,
}

impl Told {
    /// What `token` tells.
    pub(super) fn of(token: &Token) -> Self {
        match token {
            Token::TagToken(_) | Token::CommentToken(_) | Token::DoctypeToken(_) => Self::Markup,
            Token::CharacterTokens(_) | Token::NullCharacterToken => Self::Text,
            Token::ParseError(_) | Token::EOFToken => Self::Nothing,
        }
    }
}

/// Counts the attributes of what has begun with a `<`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    state: State,
    /// Whether it was a `<` of the markup, not of a script.
    sure: bool,
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has begun.
    Text,
    /// Nothing in it is an attribute.
    Comment,
    /// Whatever may begin an attribute is taken for one.
    Unknown,
    Open,
    OpenEnd,
    TagName,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Quoted(u8),
    Unquoted,
}

impl Attributes {
    pub(super) fn new() -> Self {
        Self { state: State::Text, sure: true, count: 0 }
    }

    /// So many have begun.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Follows `step`, in which no `<` is but its first byte.
    pub(super) fn follow(&mut self, step: &str, told: Told) {
        let begins = step.starts_with('<');
        match told {
            // What had begun has ended, and nothing else has begun.
            Told::Markup => return *self = Self::new(),
            Told::Text if !begins => return *self = Self::new(),
            // The text before it was told only now, or it is text itself.
            Told::Text => *self = Self { sure: false, ..Self::new() },
            Told::Nothing if begins && !self.sure && self.state != State::Text => {
                self.state = State::Unknown;
            }
            Told::Nothing => {}
        }
        for byte in step.bytes() {
            self.state = self.next(byte);
        }
    }

    fn next(&mut self, byte: u8) -> State {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'\x0c');
        let letter = byte.is_ascii_alphabetic();
        match (self.state, byte) {
            (State::Text, b'<') => State::Open,
            (State::Text, _) => State::Text,
            (State::Comment, _) => State::Comment,
            (State::Unknown, _) => {
                self.count += usize::from(blank || matches!(byte, b'/' | b'"' | b'\''));
                State::Unknown
            }
            (State::Open, b'!' | b'?') => State::Comment,
            (State::Open, b'/') => State::OpenEnd,
            (State::Open | State::OpenEnd, _) if letter => State::TagName,
            (State::Open, _) | (State::OpenEnd, b'>') => State::Text,
            (State::OpenEnd, _) => State::Comment,
            (State::TagName | State::Unquoted, _) if blank => State::BeforeName,
            (State::TagName, b'/') => State::BeforeName,
            (State::TagName, _) => State::TagName,
            (State::BeforeName, _) if blank || byte == b'/' => State::BeforeName,
            (State::Name | State::AfterName, _) if blank => State::AfterName,
            (State::Name | State::AfterName, b'/') => State::BeforeName,
            (State::Name | State::AfterName, b'=') => State::BeforeValue,
            (State::Name, _) => State::Name,
            (State::BeforeName | State::AfterName, _) => {
                self.count += 1;
                State::Name
            }
            (State::BeforeValue, _) if blank => State::BeforeValue,
            (State::BeforeValue, b'"' | b'\'') => State::Quoted(byte),
            (State::BeforeValue | State::Unquoted, _) => State::Unquoted,
            (State::Quoted(quote), _) if byte == quote => State::BeforeName,
            (State::Quoted(quote), _) => State::Quoted(quote),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use html5ever::buffer_queue::BufferQueue;
    use html5ever::tendril::StrTendril;
    use html5ever::tokenizer::states::RawKind;
    use html5ever::tokenizer::{TagKind, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};
    use proptest::prelude::*;

    use super::*;

    /// Keeps what was told and how many attributes the last tag had.
    #[derive(Default)]
    struct Sink {
        /// Whether all is within SVG, where there is CDATA.
        foreign: bool,
        told: Cell<Told>,
        attributes: Cell<usize>,
    }

    impl TokenSink for Sink {
        type Handle = ();

        fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
            self.told.set(Told::of(&token).max(self.told.get()));
            if let Token::TagToken(tag) = token {
                self.attributes.set(self.attributes.get().max(tag.attrs.len()));
                let raw = match &*tag.name {
                    "script" => RawKind::ScriptData,
                    "style" => RawKind::Rawtext,
                    "title" => RawKind::Rcdata,
                    _ => return TokenSinkResult::Continue,
                };
                if tag.kind == TagKind::StartTag {
                    return TokenSinkResult::RawData(raw);
                }
            }
            TokenSinkResult::Continue
        }

        fn adjusted_current_node_present_but_not_in_html_namespace(&self) -> bool {
            self.foreign
        }
    }

    /// Feeds `pieces` and says how many attributes of a tag were not counted before it
    /// was whole, but for those of its last piece; and how many were counted at most.
    fn missed(pieces: &[String], foreign: bool) -> (usize, usize) {
        let options = TokenizerOpts { discard_bom: false, ..TokenizerOpts::default() };
        let tokenizer = Tokenizer::new(Sink { foreign, ..Sink::default() }, options);
        let input = BufferQueue::default();
        let (mut attributes, mut missed, mut most) = (Attributes::new(), 0, 0);
        for piece in pieces {
            let before = attributes.count();
            input.push_back(StrTendril::from(piece.as_str()));
            while !matches!(tokenizer.feed(&input), html5ever::TokenizerResult::Done) {}
            attributes.follow(piece, tokenizer.sink.told.take());
            let found = tokenizer.sink.attributes.take();
            missed = missed.max(found.saturating_sub(before + piece.len()));
            most = most.max(attributes.count());
        }
        (missed, most)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_attribute_is_missed(
            words in prop::collection::vec(
                prop_oneof![
                    4 => Just("<"), 2 => Just("<x"), 1 => Just("</"), 1 => Just("<script"),
                    1 => Just("</script"), 1 => Just("<!--"), 1 => Just("-->"), 1 => Just("<!"),
                    1 => Just("<![CDATA["), 1 => Just("]]>"), 1 => Just("<?"), 2 => Just(">"),
                    3 => Just("="), 3 => Just("\""), 2 => Just("'"), 2 => Just("/"), 2 => Just(" "),
                    2 => Just("&am"), 1 => Just("&#"), 1 => Just("3"), 1 => Just("\u{feff}"),
                    1 => Just("<title"), 1 => Just("<style"), 1 => Just("</style"),
                    1 => Just("\r\n"), 1 => Just("\0"),
                    4 => Just(" many"),
                ],
                0..40,
            ),
            foreign: bool,
        ) {
            // Where many attributes may stand, so many that a step of them cannot hide.
            let mut pieces: Vec<String> = Vec::new();
            for (at, word) in words.into_iter().enumerate() {
                match word {
                    " many" => pieces.extend((0..20).map(|n| format!(" a{at}b{n}"))),
                    word => pieces.push(word.to_owned()),
                }
            }
            prop_assert_eq!(missed(&pieces, foreign).0, 0);
        }
    }

    #[test]
    fn nothing_but_attributes_is_counted() {
        let words = " a='b' / \"c\" d".repeat(50);
        for (text, count) in [
            ("<p a b=c d = 'e' f=\"g\"h/i/>".to_owned(), 6),
            (format!("<!-- {words} < p {words}"), 0),
            (format!("<!doctype {words}"), 0),
            (format!("<p a=\"{}", words.replace('"', "'")), 1),
            (format!("<p a = '{}", words.replace('\'', "<b c d")), 1),
            (format!("{words} <3 {words}"), 0),
            (format!("<script>if (a <b {words}) {{}} {words}"), 0),
            (format!("3 < 5 <p a=\"{}\"> </p>", words.replace('"', "'")), 1),
            (format!("<![CDATA[ a <b {words} ]]>"), 0),
        ] {
            let mut pieces: Vec<String> = Vec::new();
            for byte in text.chars() {
                match pieces.last_mut() {
                    Some(piece) if byte != '<' && piece.len() < 5 => piece.push(byte),
                    _ => pieces.push(byte.to_string()),
                }
            }
            let (missed, most) = missed(&pieces, true);
            assert_eq!(missed, 0, "{text}");
            // What begins or ends within a piece is only known after it.
            assert!(most.abs_diff(count) <= 2, "{most} for {count} in {text}");
        }
    }
}
