//! HTML character references, such as `&quot;` and `&#1600;`.

use super::mapped::{Mapped, Span};

/// Longest reference that is looked for, in characters, `&` and `;` included. The
/// longest name of the HTML standard, `&CounterClockwiseContourIntegral;`, has 33.
const LONGEST: usize = 40;

/// Appends `c`; if it ends a character reference, what it stands for takes its
/// place.
///
/// Since each character goes through here, and what a reference gives can end
/// another, text that was escaped twice (`&amp;quot;`, common in wire copy)
/// comes out plain, in time linear in its length.
pub(super) fn push_decoded(out: &mut Mapped, c: char, span: Span) {
    out.push(c, span);
    let mut ends_reference = c == ';';
    // A loop and not a recursion: `&semi&semi&semi;` is as deep as it is long.
    while ends_reference {
        let before = out.as_str().char_indices().rev().take(LONGEST).find(|&(_, c)| c == '&');
        let candidate = before.and_then(|(at, _)| out.as_str().get(at..));
        let Some((length, decoded)) =
            candidate.and_then(|candidate| Some((candidate.chars().count(), decode(candidate)?)))
        else {
            return;
        };
        let popped = (0..length).filter_map(|_| out.pop());
        let whole = popped.map(|(_, span)| span).fold(span, Span::join);
        decoded.chars().for_each(|c| out.push(c, whole));
        ends_reference = decoded == ";";
    }
}

/// What `candidate`, from `&` to `;`, stands for.
fn decode(candidate: &str) -> Option<String> {
    let name = candidate.strip_prefix('&')?.strip_suffix(';')?;
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'#');
    if !is_name || name.is_empty() {
        return None;
    }
    let decoded = htmlize::unescape(candidate);
    // `&notit;` decodes to `¬it;`, by an old rule on names without a semicolon.
    let whole = decoded != candidate && (!decoded.ends_with(';') || decoded == ";");
    whole.then(|| decoded.into_owned())
}
