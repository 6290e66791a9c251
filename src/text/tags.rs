//! HTML markup: tags, comments, and the insides of scripts and style sheets.
//!
//! By hand and not by a pattern: with one for `<!-- … -->`, a text of many openings
//! and no end would be searched to its end from each of them.

use super::mapped::{Mapped, Span};

/// An element that is markup with all that it holds: how it opens and how it ends.
const SECTIONS: [(&str, &str); 3] =
    [("<!--", "-->"), ("<script", "</script>"), ("<style", "</style>")];

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
fn find(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    // A section that is opened and not ended is looked for once, not from each opening.
    let mut ended = [true; SECTIONS.len()];
    let mut from = 0;
    while let Some(start) = text.get(from..).and_then(|rest| rest.find('<')).map(|at| from + at) {
        let rest = text.get(start..).unwrap_or_default();
        let section = SECTIONS.iter().zip(&mut ended).find_map(|((open, close), ended)| {
            if !*ended || !rest.starts_with(open) {
                return None;
            }
            let length = rest.find(close).map(|at| at + close.len());
            *ended = length.is_some();
            length
        });
        match section.or_else(|| tag_length(rest)) {
            Some(length) => {
                found.push(start..start + length);
                from = start + length;
            }
            None => from = start + 1,
        }
    }
    found
}

/// Length in bytes of the tag that `text` starts with: `<`, perhaps `/`, `!` or
/// `?`, a letter, and up to `>` without another bracket.
fn tag_length(text: &str) -> Option<usize> {
    let name = text.strip_prefix('<')?;
    let name = name.strip_prefix(['/', '!', '?']).unwrap_or(name);
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    let end = name.find(['<', '>'])?;
    name.get(end..)?.starts_with('>').then_some(text.len() - name.len() + end + 1)
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
        assert_eq!(blanked("3 < 5 و 7 > 2 و <3"), "3 < 5 و 7 > 2 و <3");
        assert_eq!(blanked("<!-- لم يغلق <b>نص"), "<!-- لم يغلق  نص");
    }
}
