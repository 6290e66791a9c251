//! HTML character references, such as `&quot;` and `&#1600;`.

use super::mapped::{Mapped, Span};

/// Longest reference that is looked for, in characters, `&` and `;` included. The
/// longest name of the HTML standard, `&CounterClockwiseContourIntegral;`, has 33.
const LONGEST: usize = 40;

/// Appends `c`; if it ends a character reference, what it stands for takes its
/// place.
///
/// Since each character goes through here, what a reference gives can end
/// another, and text that was escaped twice (`&amp;quot;`, common in wire copy)
/// comes out plain, in time linear in its length.
pub(super) fn push_decoded(out: &mut Mapped, c: char, span: Span) {
    out.push(c, span);
    if c != ';' {
        return;
    }
    let tail_start = out.as_str().char_indices().rev().take(LONGEST).find(|&(_, c)| c == '&');
    let Some(candidate) = tail_start.and_then(|(at, _)| out.as_str().get(at..)) else { return };
    let Some(decoded) = decode(candidate) else { return };
    let mut whole = span;
    for _ in 0..candidate.chars().count() {
        if let Some((_, popped)) = out.pop() {
            whole = whole.join(popped);
        }
    }
    for c in decoded.chars() {
        push_decoded(out, c, whole);
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
