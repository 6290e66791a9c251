//! HTML markup: tags, comments, and the insides of scripts and style sheets.
//!
//! By hand and not by a pattern: with one for `<!-- … -->`, a text of many openings
//! and no end would be searched to its end from each of them.

use std::ops::Range;

use super::mapped::{Mapped, Span};

/// An element that is markup with all that it holds: how it opens and how it ends.
const SECTIONS: [(&str, &str); 3] =
    [("<!--", "-->"), ("<script", "</script"), ("<style", "</style")];

/// `text` with every tag, comment, script and style sheet replaced by a space.
pub(super) fn blank(text: Mapped) -> Mapped {
    if !text.as_str().contains('<') {
        return text;
    }
    let markup = find(&text.as_str().to_ascii_lowercase());
    let mut out = Mapped::with_capacity_of(&text);
    let mut markup = markup.into_iter().peekable();
    let mut inside: Option<Span> = None;
    let mut at = 0;
    for (c, span) in text.iter() {
        let opens = markup.peek().is_some_and(|range| range.start <= at);
        at += c.len_utf8();
        if !opens {
            out.push(c, span);
            continue;
        }
        let whole = inside.map_or(span, |before| before.join(span));
        inside = Some(whole);
        if markup.peek().is_some_and(|range| range.end <= at) {
            out.push(' ', whole);
            inside = None;
            markup.next();
        }
    }
    out
}

/// Byte ranges of the markup in `text`, which is in lower case.
///
/// A tag inside another (`<a <b>>`) belongs to it, as if the inner one were taken
/// out first; a bracket that opens no tag keeps those before it from being one.
fn find(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    // A section that is opened and not ended is looked for once, not from each opening.
    let mut ended = [true; SECTIONS.len()];
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(['<', '>'])) {
        let at = from + at;
        let rest = text.get(at..).unwrap_or_default();
        from = at + 1;
        if rest.starts_with('>') {
            if let Some(start) = open.pop() {
                while found.pop_if(|inner| inner.start > start).is_some() {}
                found.push(start..from);
            }
            continue;
        }
        let section = SECTIONS.iter().zip(&mut ended).find_map(|((open, close), ended)| {
            if !*ended || !opens(rest, open) {
                return None;
            }
            let length = section_length(rest, close);
            *ended = length.is_some();
            length
        });
        if let Some(length) = section {
            found.push(at..at + length);
            from = at + length;
        } else if opens_tag(rest) {
            open.push(at);
        } else {
            open.clear();
        }
    }
    found
}

/// Whether `text` starts with `open` and not with a longer name.
fn opens(text: &str, open: &str) -> bool {
    let rest = text.strip_prefix(open);
    let whole_name = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    rest.is_some_and(|rest| open == "<!--" || whole_name(rest))
}

/// Length in bytes up to the end of `close` and, where that is a tag, its `>`: `</script` in a string of a script is no tag
/// (HTML, 13.2.5.17).
fn section_length(text: &str, close: &str) -> Option<usize> {
    let mut end = 0;
    loop {
        end += text.get(end..)?.find(close)? + close.len();
        let rest = text.get(end..)?;
        if close.ends_with('>') {
            return Some(end);
        }
        if rest.starts_with(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>') {
            return Some(end + rest.find('>')? + 1);
        }
    }
}

/// Whether `text` starts with `<`, perhaps `/`, `!` or `?`, and a letter.
fn opens_tag(text: &str) -> bool {
    let name = text.strip_prefix('<').unwrap_or_default();
    let name = name.strip_prefix(['/', '!', '?']).unwrap_or(name);
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blanked(text: &str) -> String {
        blank(Mapped::new(text)).as_str().to_owned()
    }

    #[test]
    fn markup_goes_and_text_stays() {
        assert_eq!(blanked("<p class=\"a\">نص</P> وآخر<br/>"), " نص  وآخر ");
        assert_eq!(blanked("أ<!-- <b> لا -->ب<SCRIPT>x < 1</script>ج"), "أ ب ج");
        assert_eq!(blanked("أ<style >x</style\n>ب<styled>ج</styled>"), "أ ب ج ");
        let ends_in_a_string = "<script>w(\"<script src=a></script\"+\">\");</script>";
        assert_eq!(blanked(&format!("{ends_in_a_string}ب<script>x</script >ج")), " ب ج");
        assert_eq!(blanked("<script>x</script/>ب<script>y</scripts>ج"), " ب y ج");
        assert_eq!(blanked(&format!("{}{}ن", "<b".repeat(12), ">".repeat(12))), " ن");
        assert_eq!(blanked("3 < 5 و 7 > 2 و <3"), "3 < 5 و 7 > 2 و <3");
        assert_eq!(blanked("<!-- لم يغلق <b>نص"), "<!-- لم يغلق  نص");
    }
}
