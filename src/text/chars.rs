//! What single characters become.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

/// Arabic letters in the shapes of old encodings and of PDF files, ligatures such
/// as «ﷲ» and «ﷺ» among them: Arabic Presentation Forms A and B. The ornate
/// parentheses stand in the same block and have no other form.
pub(super) fn is_presentation_form(c: char) -> bool {
    matches!(c, '\u{FB50}'..='\u{FDFF}' | '\u{FE70}'..='\u{FEFC}')
}

/// The compatibility form (Unicode NFKC) of one character.
pub(super) fn compatible(c: char) -> impl Iterator<Item = char> {
    std::iter::once(c).nfkc()
}

/// Tatweel (kashida), which only stretches a word.
pub(super) const TATWEEL: char = '\u{0640}';

/// Short vowels and other marks over and under letters: tashkeel, Quranic
/// annotation and the extended marks.
pub(super) fn is_diacritic(c: char) -> bool {
    matches!(c,
        '\u{0610}'..='\u{061A}'
        | '\u{064B}'..='\u{065F}'
        | '\u{0670}'
        | '\u{06D6}'..='\u{06DC}'
        | '\u{06DF}'..='\u{06E4}'
        | '\u{06E7}'..='\u{06E8}'
        | '\u{06EA}'..='\u{06ED}'
        | '\u{08CA}'..='\u{08E1}'
        | '\u{08E3}'..='\u{08FF}')
}

/// The eight short vowels that AraBERT strips (pyarabic's `TASHKEEL`).
pub(super) fn is_tashkeel(c: char) -> bool {
    matches!(c, '\u{064B}'..='\u{0652}')
}

/// The marks that CAMeL Tools' `dediac_ar` strips.
pub(super) fn is_camel_diacritic(c: char) -> bool {
    matches!(c, '\u{064B}'..='\u{0652}' | '\u{0670}' | TATWEEL)
}

/// Madda and hamza as marks of their own: on their letter they make another one.
pub(super) fn is_composing(c: char) -> bool {
    matches!(c, '\u{0653}'..='\u{0655}')
}

/// Characters without a glyph: zero-width spaces and joiners, bidi controls, the
/// byte-order mark, the soft hyphen and variation selectors.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}'
        | '\u{061C}'
        | '\u{180E}'
        | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}'
        | '\u{FFF9}'..='\u{FFFB}')
}

/// White space of every kind, and control characters, which separate words too.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// The ASCII digit of an Arabic-Indic or Persian one.
pub(super) fn ascii_digit(c: char) -> Option<char> {
    let value = match c {
        '\u{0660}'..='\u{0669}' => u32::from(c) - 0x0660,
        '\u{06F0}'..='\u{06F9}' => u32::from(c) - 0x06F0,
        _ => return None,
    };
    char::from_digit(value, 10)
}

/// The letter that careless writing has for `c`: alef without hamza, madda or
/// wasla, ya for alef maqsura, ha for ta marbuta; and Arabic's ya and kaf for those
/// of Persian keyboards.
pub(super) fn plain_letter(c: char) -> Option<char> {
    match c {
        'أ' | 'إ' | 'آ' | 'ٱ' => Some('ا'),
        'ى' | 'ی' => Some('ي'),
        'ة' => Some('ه'),
        'ک' => Some('ك'),
        _ => None,
    }
}

/// Punctuation (Unicode P), but for what asks, exclaims or counts.
pub(super) fn is_silent_punctuation(c: char) -> bool {
    // Most characters are these, and need not be looked up.
    let common = c == ' ' || c.is_ascii_alphanumeric() || matches!(c, '\u{0620}'..='\u{064A}');
    !common
        && c.general_category_group() == GeneralCategoryGroup::Punctuation
        && !matches!(c, '!' | '?' | '؟' | '%' | '٪')
}

/// Whether runs of three and more of `c` are emphasis, in the `news` profile:
/// Arabic letters and punctuation. Latin letters and the slash are left, since
/// they make up addresses.
pub(super) fn is_stretchable(c: char) -> bool {
    matches!(c, '\u{0620}'..='\u{064A}' | '\u{066E}'..='\u{06D3}')
        || matches!(c, '!' | '?' | '؟' | '.' | ',' | '،' | '؛' | ';' | ':' | '-' | '_' | '*' | '~')
        || matches!(c, '=' | '+' | '|' | '…' | '•' | '–' | '—' | '"' | '\'')
}
