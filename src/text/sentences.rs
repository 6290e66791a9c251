//! Sentences of Arabic text.

use std::ops::Range;

/// Byte ranges of the sentences of `text`, in order, without the white space
/// around them. Together they hold everything but white space.
///
/// A sentence ends at a line's end, or after `.`, `!`, `?`, `؟`, `۔` or `…` (and
/// the quotes and brackets that close after it) where white space follows. Two
/// habits of Arabic newsrooms are known: a full stop set off before the next
/// sentence («كذا .وقال») ends one, and the full stop of an initial («د. سمير»,
/// «أ .ف .ب») does not.
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\n' {
            push_trimmed(&mut found, text, start..at);
            start = at + 1;
        } else if is_terminal(c) {
            // The run of terminals, and of what closes after them, is gone through once.
            let (mut end, mut only_stops) = (at + c.len_utf8(), c == '.');
            while let Some(&(next, c)) = chars.peek() {
                if !is_terminal(c) && !is_closing(c) {
                    break;
                }
                only_stops &= c == '.';
                end = next + c.len_utf8();
                chars.next();
            }
            let before = text.get(..at).unwrap_or_default();
            if ends_sentence(before, only_stops, chars.peek().map(|&(_, c)| c)) {
                push_trimmed(&mut found, text, start..end);
                start = end;
            }
        }
    }
    push_trimmed(&mut found, text, start..text.len());
    found
}

fn is_terminal(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '؟' | '۔' | '…')
}

fn is_closing(c: char) -> bool {
    matches!(c, '"' | '”' | '»' | ')' | ']' | '’' | '\'')
}

/// Whether a run of terminals between `before` and the character `next` ends a
/// sentence; `only_stops`: it is nothing but full stops.
fn ends_sentence(before: &str, only_stops: bool, next: Option<char>) -> bool {
    let followed_by_space = next.is_none_or(char::is_whitespace);
    if !only_stops {
        return followed_by_space;
    }
    let set_off = before.ends_with(char::is_whitespace) && next.is_some_and(|c| !c.is_numeric());
    (followed_by_space || set_off) && !ends_with_initial(before)
}

/// Whether `before` ends with a letter standing alone, as in «د» of «د. سمير».
fn ends_with_initial(before: &str) -> bool {
    let mut back = before.trim_end().chars().rev();
    let alone = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    back.next().is_some_and(char::is_alphabetic) && alone(back.next())
}

fn push_trimmed(found: &mut Vec<Range<usize>>, text: &str, range: Range<usize>) {
    let part = text.get(range.clone()).unwrap_or_default();
    let trimmed = part.trim();
    if !trimmed.is_empty() {
        let start = range.start + (part.len() - part.trim_start().len());
        found.push(start..start + trimmed.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn arabic_punctuation_ends_sentences() {
        assert_eq!(
            split("وصل الوفد. هل يوقع الاتفاق؟ نعم!\nقال \"سنعود قريبا.\" ثم مضى…"),
            ["وصل الوفد.", "هل يوقع الاتفاق؟", "نعم!", "قال \"سنعود قريبا.\"", "ثم مضى…"]
        );
    }

    #[test]
    fn a_stop_set_off_before_the_next_word_ends_a_sentence() {
        assert_eq!(split("انتهت الجلسة .وقال الوزير"), ["انتهت الجلسة .", "وقال الوزير"]);
    }

    #[test]
    fn numbers_and_initials_do_not() {
        for text in ["بلغ السعر 3.5 دولار", "قال د. سمير حسن", "نقلت (أ .ف .ب) الخبر"]
        {
            assert_eq!(split(text), [text]);
        }
    }

    #[test]
    fn a_long_run_of_terminals_is_gone_through_once() {
        let text = format!("{}ا", "!".repeat(400_000));
        assert_eq!(sentences(&text).first(), Some(&(0..text.len())));
    }

    proptest! {
        #[test]
        fn sentences_hold_everything_but_white_space(text in "[ \n.!؟»\"ابدأ 3a]{0,60}") {
            let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let joined: String = split(&text).concat();
            prop_assert_eq!(solid(&joined), solid(&text));
            let ranges = sentences(&text);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
