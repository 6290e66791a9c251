//! The steps that profiles are made of.

use std::sync::LazyLock;

use regex::Regex;

use super::mapped::Mapped;
use super::{bylines, chars, entities, tags};

/// One step of a normalisation profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Arabic presentation forms become ordinary letters (Unicode NFKC), and
    /// letters followed by hamza or madda as marks become one letter.
    PresentationForms,
    /// Characters of a class are removed.
    Remove(Class),
    /// Characters of a class become a space.
    Blank(Class),
    /// One character becomes another.
    Substitute(char, char),
    /// Arabic-Indic and Persian digits become ASCII digits.
    AsciiDigits,
    /// Letters become those that careless writing uses for them.
    PlainLetters,
    /// HTML character references become what they stand for.
    HtmlEntities,
    /// Runs of three and more of one character of a class become two.
    CollapseRepeats(Class),
    /// HTML tags, comments, scripts and style sheets become a space.
    HtmlTags,
    /// Matches of a pattern become a space.
    BlankMatches(Pattern),
    /// Matches of a pattern become a token, set off by spaces.
    Replace(Pattern, &'static str),
    /// `#like_this` becomes `like this`.
    Hashtags,
    /// Agency names, datelines and retweet marks at the start are removed.
    Bylines,
    /// Characters of a class are set off by spaces.
    Isolate(Class),
    /// A space comes between digits and letters.
    SplitDigits,
    /// Runs of white space become one space, and none is left at the ends.
    SqueezeSpaces,
}

/// A class of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tatweel,
    Diacritics,
    Tashkeel,
    CamelDiacritics,
    Invisible,
    /// What runs of emphasis are made of.
    Stretchable,
    NonDigits,
    /// What can be left out of a sentence without changing its tone.
    Punctuation,
    /// What AraBERT sets off by spaces.
    ArabertPunctuation,
    /// What is outside AraBERT's alphabet.
    ArabertRejected,
    /// What the original BERT implementation drops.
    BertInvalid,
}

impl Class {
    fn contains(self, c: char) -> bool {
        match self {
            Self::Tatweel => c == chars::TATWEEL,
            Self::Diacritics => chars::is_diacritic(c),
            Self::Tashkeel => chars::is_tashkeel(c),
            Self::CamelDiacritics => chars::is_camel_diacritic(c),
            Self::Invisible => chars::is_invisible(c),
            Self::Stretchable => chars::is_stretchable(c),
            Self::NonDigits => !c.is_numeric(),
            Self::Punctuation => chars::is_silent_punctuation(c),
            Self::ArabertPunctuation => !is_arabert_word(c) && !matches!(c, ' ' | '[' | ']'),
            Self::ArabertRejected => !is_arabert_alphabet(c),
            Self::BertInvalid => {
                matches!(c, '\0' | '\u{FFFD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}')
                    || matches!(c, '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206F}' | '\u{FEFF}')
                    || (c.is_control() && !c.is_whitespace())
            }
        }
    }
}

/// `0-9 ء-غ ف-ي ٠-٩ a-z A-Z`.
fn is_arabert_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '\u{0621}'..='\u{063A}' | '\u{0641}'..='\u{064A}' | '\u{0660}'..='\u{0669}')
}

/// The complement of `rejected_chars_regex` in AraBERT's preprocess.py.
fn is_arabert_alphabet(c: char) -> bool {
    is_arabert_word(c)
        || matches!(c, '\u{0640}'..='\u{066C}' | '\u{0671}'..='\u{0674}')
        || (c.is_ascii_punctuation() && c != '&')
        || c.is_whitespace()
        || "·—٪’،؟୍“؛”ۚ»«–…‘".contains(c)
}

/// What the pattern steps look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    Urls,
    Emails,
    Mentions,
    ArabertTags,
    ArabertUrls,
    ArabertEmails,
    ArabertMentions,
}

impl Pattern {
    /// The expression, and characters or words without one of which it cannot match.
    fn regex(self) -> (&'static Regex, &'static [&'static str]) {
        macro_rules! pattern {
            ($needles:expr, $expression:expr) => {{
                static REGEX: LazyLock<Regex> = LazyLock::new(|| compile($expression));
                (&REGEX, $needles)
            }};
        }
        match self {
            // Arabic letters and quotes end an address: they are stuck to it without a
            // space in social media posts.
            Self::Urls => pattern!(
                &["://", "www.", "WWW.", "Www.", "pic."],
                r#"(?i)(?:(?:https?|ftp)://|www\.|pic\.twitter\.com/)[^\s<>"'«»،؛؟\u{0600}-\u{06FF}]+"#
            ),
            Self::Emails => {
                pattern!(&["@"], r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]+")
            }
            Self::Mentions => pattern!(&["@"], r"@[A-Za-z0-9_]+"),
            Self::ArabertTags => pattern!(&["<"], r"</?[^>]+>"),
            // preprocess.py's url_regexes, in their order, as alternatives.
            Self::ArabertUrls => pattern!(
                &[".", "http", "www", "://"],
                r"(?:http(?:s)?://.)?(?:www\.)?[-a-zA-Z0-9@:%._+~#=]{2,256}\.[a-z]{2,6}\b(?:[-a-zA-Z0-9@:%_+.~#?&/=]*)|http[^\s]+|www[^\s]+|[a-zA-Z]+\.com|://"
            ),
            Self::ArabertEmails => pattern!(&["@"], r"[\w-]+@(?:[\w-]+\.)+[\w-]+|\S+@\S+"),
            Self::ArabertMentions => pattern!(&["@"], r"@[\w\d]+"),
        }
    }

    /// The expression, if it may match in `text`.
    fn candidate(self, text: &str) -> Option<&'static Regex> {
        let (regex, needles) = self.regex();
        needles.iter().any(|needle| text.contains(needle)).then_some(regex)
    }
}

/// The expression of a literal in this crate.
#[allow(clippy::expect_used)] // A literal: the tests compile each of them.
pub(super) fn compile(expression: &str) -> Regex {
    Regex::new(expression).expect("a literal expression")
}

impl Step {
    pub(super) fn apply(self, text: Mapped) -> Mapped {
        match self {
            Self::PresentationForms => presentation_forms(text),
            Self::Remove(class) => filter(text, class, None),
            Self::Blank(class) => filter(text, class, Some(' ')),
            Self::Substitute(from, to) => {
                map_chars(text, |c| if c == from { Some(to) } else { None })
            }
            Self::AsciiDigits => map_chars(text, chars::ascii_digit),
            Self::PlainLetters => map_chars(text, chars::plain_letter),
            Self::HtmlEntities => html_entities(text),
            Self::HtmlTags => tags::blank(text),
            Self::CollapseRepeats(class) => collapse_repeats(text, class),
            Self::BlankMatches(pattern) => match pattern.candidate(text.as_str()) {
                Some(regex) => text.rewrite(regex, |found, out| out.push(' ', found.span())),
                None => text,
            },
            Self::Replace(pattern, token) => match pattern.candidate(text.as_str()) {
                Some(regex) => text.rewrite(regex, |found, out| {
                    let set_off = std::iter::once(' ').chain(token.chars()).chain([' ']);
                    set_off.for_each(|c| out.push(c, found.span()));
                }),
                None => text,
            },
            Self::Hashtags => hashtags(text),
            Self::Bylines => bylines::strip(text),
            Self::Isolate(class) => isolate(text, class),
            Self::SplitDigits => split_digits(text),
            Self::SqueezeSpaces => squeeze_spaces(text),
        }
    }
}

/// `text` without the characters of `class`, or with `instead` in their place.
fn filter(text: Mapped, class: Class, instead: Option<char>) -> Mapped {
    if !text.as_str().chars().any(|c| class.contains(c) && Some(c) != instead) {
        return text;
    }
    let mut out = Mapped::with_capacity_of(&text);
    for (c, span) in text.iter() {
        if !class.contains(c) {
            out.push(c, span);
        } else if let Some(instead) = instead {
            out.push(instead, span);
        }
    }
    out
}

fn presentation_forms(text: Mapped) -> Mapped {
    let changes = |c| chars::is_presentation_form(c) || chars::is_composing(c);
    if !text.as_str().chars().any(changes) {
        return text;
    }
    let mut out = Mapped::with_capacity_of(&text);
    for (c, span) in text.iter() {
        if chars::is_presentation_form(c) {
            // That of a mark by itself has a space before it, which would cut the word.
            chars::compatible(c).skip_while(|c| *c == ' ').for_each(|c| out.push(c, span));
            continue;
        }
        let last = out.last().filter(|_| chars::is_composing(c));
        let composed = last.and_then(|(letter, before)| {
            unicode_normalization::char::compose(letter, c).zip(Some(before))
        });
        match composed {
            Some((letter, before)) => {
                out.pop();
                out.push(letter, before.join(span));
            }
            None => out.push(c, span),
        }
    }
    out
}

/// `text` with the characters replaced for which `map` has another one.
fn map_chars(text: Mapped, map: impl Fn(char) -> Option<char>) -> Mapped {
    if !text.as_str().chars().any(|c| map(c).is_some()) {
        return text;
    }
    let mut out = Mapped::with_capacity_of(&text);
    text.iter().for_each(|(c, span)| out.push(map(c).unwrap_or(c), span));
    out
}

fn html_entities(text: Mapped) -> Mapped {
    if !text.as_str().contains('&') {
        return text;
    }
    let mut out = Mapped::with_capacity_of(&text);
    text.iter().for_each(|(c, span)| entities::push_decoded(&mut out, c, span));
    out
}

fn collapse_repeats(text: Mapped, class: Class) -> Mapped {
    let mut out = Mapped::with_capacity_of(&text);
    let mut run: Option<(char, usize)> = None;
    for (c, span) in text.iter() {
        let length = run.filter(|&(previous, _)| previous == c).map_or(1, |(_, length)| length + 1);
        run = Some((c, length));
        if length <= 2 || !class.contains(c) {
            out.push(c, span);
        }
    }
    out
}

fn hashtags(text: Mapped) -> Mapped {
    static HASHTAG: LazyLock<Regex> = LazyLock::new(|| compile(r"#[\p{L}\p{N}_]+"));
    if !text.as_str().contains('#') {
        return text;
    }
    text.rewrite(&HASHTAG, |found, out| {
        for (c, span) in found.iter() {
            out.push(if matches!(c, '#' | '_') { ' ' } else { c }, span);
        }
    })
}

fn isolate(text: Mapped, class: Class) -> Mapped {
    let mut out = Mapped::with_capacity_of(&text);
    for (c, span) in text.iter() {
        if class.contains(c) {
            [' ', c, ' '].into_iter().for_each(|c| out.push(c, span));
        } else {
            out.push(c, span);
        }
    }
    out
}

fn split_digits(text: Mapped) -> Mapped {
    let is_letter = |c: char| {
        matches!(c, '\u{0621}'..='\u{063A}' | '\u{0641}'..='\u{064A}')
            || matches!(c, '\u{066A}'..='\u{066C}' | '\u{0654}'..='\u{0655}')
    };
    let mut out = Mapped::with_capacity_of(&text);
    for (c, span) in text.iter() {
        let border = out.last().is_some_and(|(last, _)| {
            (last.is_numeric() && is_letter(c)) || (is_letter(last) && c.is_numeric())
        });
        if border {
            out.push(' ', span);
        }
        out.push(c, span);
    }
    out
}

fn squeeze_spaces(text: Mapped) -> Mapped {
    let mut out = Mapped::with_capacity_of(&text);
    for (c, span) in text.iter() {
        if !chars::is_space(c) {
            out.push(c, span);
        } else if out.last().is_some_and(|(last, _)| last != ' ') {
            out.push(' ', span);
        }
    }
    if out.last().is_some_and(|(last, _)| last == ' ') {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(step: Step, text: &str) -> String {
        step.apply(Mapped::new(text)).as_str().to_owned()
    }

    #[test]
    fn every_expression_compiles() {
        use Pattern::*;
        for pattern in
            [Urls, Emails, Mentions, ArabertTags, ArabertUrls, ArabertEmails, ArabertMentions]
        {
            assert!(!pattern.regex().0.as_str().is_empty());
        }
    }

    #[test]
    fn ligatures_and_marks_become_ordinary_letters() {
        assert_eq!(apply(Step::PresentationForms, "ﷲ ﻻ ﺁ"), "الله لا آ");
        assert_eq!(
            apply(Step::PresentationForms, "ﻛ\u{fe76}ﺘ\u{fc60}ﺐ"),
            "ك\u{64e}ت\u{64e}\u{651}ب"
        );
        assert_eq!(apply(Step::PresentationForms, "ا\u{0653}ن ا\u{0654}مل"), "آن أمل");
    }

    #[test]
    fn references_are_decoded_however_often_they_were_escaped() {
        let decode = |text| apply(Step::HtmlEntities, text);
        assert_eq!(decode("&quot;نعم&quot; &#1571; &#x623;"), "\"نعم\" أ أ");
        assert_eq!(decode("&amp;amp;quot;"), "\"");
        assert_eq!(decode("&am&#112;;lt;"), "<");
        assert_eq!(decode("AT&T; &nosuchname; &; &notit;"), "AT&T; &nosuchname; &; &notit;");
    }

    #[test]
    fn runs_of_emphasis_become_two() {
        let step = Step::CollapseRepeats(Class::Stretchable);
        assert_eq!(apply(step, "راااائع!!!!! الله 1000 www"), "راائع!! الله 1000 www");
    }

    #[test]
    fn addresses_end_where_arabic_begins() {
        let step = Step::BlankMatches(Pattern::Urls);
        assert_eq!(apply(step, "قال https://t.co/aB1قال"), "قال  قال");
        assert_eq!(apply(step, "انظر www.example.org/a?b=1، نعم"), "انظر  ، نعم");
    }
}
