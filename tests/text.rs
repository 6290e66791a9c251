//! Properties of text normalisation that hold for any string.

use proptest::prelude::*;
use tasnif::text::Profile;

/// Strings in which the steps meet each other: markup, references, addresses,
/// marks and Arabic, whole and in parts.
fn hostile() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("&".to_owned()),
        "&(amp|lt|gt|quot|nbsp|#1600|#x640|#38|#60);?",
        "[<>/!;#@_:.&\\-]{1,4}",
        "</?(b|p|script|br /|!--)>?",
        "(https?://|www\\.|hhttp|htttp|pic\\.twitter\\.com/)[a-z./]{0,6}",
        "[a-z]{1,4}@[a-z]{1,4}(\\.com)?",
        "[#@][a-z_ا-ي]{0,6}",
        "(دبي|رويترز|الخليج|RT|أ ف ب)",
        "[«»\"()\\[\\]:–ـ-]{1,3}",
        "[ا-ي]{1,8}",
        "[أإآٱىیةک]{1,4}",
        "\"RT ",
        "[\u{064B}-\u{0655}\u{0670}\u{0640}]{1,3}",
        "[\u{FB50}-\u{FBFF}\u{FE70}-\u{FEFF}\u{FDF0}-\u{FDFF}]{1,3}",
        "[\u{200B}-\u{200F}\u{202A}-\u{202E}\u{FEFF}]{1,2}",
        "[0-9٠-٩۰-۹]{1,4}",
        "[ \t\n\u{00A0}]{1,3}",
        "(ا{3,5}|!{3,5}|w{3,4}|t{3})",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

fn check(profile: Profile, text: &str) -> Result<(), TestCaseError> {
    let once = profile.normalize(text);
    let twice = profile.normalize(once.text());
    prop_assert_eq!(once.text(), twice.text(), "{} is idempotent", profile);

    let originals = text.chars().count();
    let (mut start, mut end) = (0, 0);
    for (at, c) in once.text().char_indices() {
        let range = once.original_range(at..at + c.len_utf8());
        prop_assert!(range.start <= range.end && range.end <= originals, "{range:?} is in range");
        prop_assert!(range.start >= start && range.end >= end, "{range:?} follows {start}..{end}");
        prop_assert!(!range.is_empty(), "every character came from somewhere");
        (start, end) = (range.start, range.end);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn normalisation_of_hostile_text_is_idempotent_and_mapped(text in hostile()) {
        for profile in Profile::ALL {
            check(profile, &text)?;
        }
    }

    #[test]
    fn normalisation_of_any_string_is_idempotent_and_mapped(text in any::<String>()) {
        for profile in Profile::ALL {
            check(profile, &text)?;
        }
    }

    #[test]
    fn any_byte_range_maps_into_the_original(
        text in hostile(),
        a in 0usize..200,
        b in 0usize..200,
    ) {
        let normalized = Profile::News.normalize(&text);
        let range = normalized.original_range(a.min(b)..a.max(b));
        prop_assert!(range.start <= range.end && range.end <= text.chars().count());
    }
}

#[test]
fn news_reads_an_article_as_an_editor_would() {
    let raw = "دبي: «الخليج»\n<p>أعْلَنَت الشـــركةُ&nbsp;عن أرباح بلغت ٣٫٥ ملايين&quot;</p> \
               https://t.co/x #سوق_المال @trader \u{202B}ﷲ\u{202C} رااااائع!!!!";
    assert_eq!(
        Profile::News.normalize(raw).text(),
        "أعلنت الشركة عن أرباح بلغت 3٫5 ملايين\" سوق المال الله راائع!!"
    );
}

/// Letters in careful and careless spelling.
#[test]
fn folded_text_is_the_same_in_many_hands() {
    let careful = "أكّدت الوزيرةُ، في آخر بيان، إنّ «المدارس» تُفتح غداً على مستوى القرى: 5% فقط!";
    let expected = "اكدت الوزيره في اخر بيان ان المدارس تفتح غدا علي مستوي القري 5% فقط!";
    let careless = "اكدت الوزيره فى اخر بيـان ان المدارس تفتح غدا علي مستوى القرى 5% فقط!";
    for hand in [careful, careless, expected] {
        assert_eq!(Profile::Folded.normalize(hand).text(), expected);
    }
    let raw = "قالت «الوزيرة»";
    let normalized = Profile::Folded.normalize(raw);
    let word = normalized.text().find("الوزيره").unwrap();
    let range = normalized.original_range(word..normalized.text().len());
    let found: String = raw.chars().skip(range.start).take(range.len()).collect();
    assert_eq!(found, "الوزيرة");
}

#[test]
fn offsets_lead_back_to_the_original() {
    let raw = "<b>قالَ</b> الـوزير";
    let normalized = Profile::News.normalize(raw);
    assert_eq!(normalized.text(), "قال الوزير");
    let word = normalized.text().find("الوزير").unwrap();
    let range = normalized.original_range(word..normalized.text().len());
    let found: String = raw.chars().skip(range.start).take(range.len()).collect();
    assert_eq!(found, "الـوزير");
}

/// The longest text that a server takes, made of what each step looks for, is
/// read in time linear in its length; a quadratic step would take minutes.
#[test]
fn long_hostile_texts_end() {
    let parts = [
        "<!--<b>",
        "<script",
        "<style>",
        "RT ",
        "(وام) ",
        "رويترز - ",
        "&amp;",
        "&am",
        "&#4",
        "8;",
        "ـ",
        "ًّ",
        "http://",
        "a@",
        "@a",
        "#_",
        "ا",
        "أا",
        "«",
        "!",
        "\u{200B}",
        "ﷺ",
        "<",
        ">",
        ". ",
        "a.bb",
        "www",
    ];
    for part in parts {
        let text = part.repeat(400_000 / part.chars().count()) + ">;";
        for profile in Profile::ALL {
            let normalized = profile.normalize(&text);
            assert!(normalized.text().len() <= 20 * text.len());
        }
    }
}

#[test]
fn none_changes_nothing() {
    let raw = "  <b>كَما</b>   هو ";
    assert_eq!(Profile::None.normalize(raw).text(), raw);
}

#[test]
fn camelbert_drops_marks_and_keeps_letters() {
    assert_eq!(
        Profile::Camelbert.normalize("قَالَ\u{0000} الوزيـــر:\t أهلاً").text(),
        "قال الوزير: أهلا"
    );
}

/// The expected strings are those of AraBERT's own `preprocess.py`, written by
/// `tests/goldens/arabert_preprocess.py`.
#[test]
fn arabert_gives_what_its_authors_code_gives() {
    let goldens: serde_json::Value =
        serde_json::from_str(include_str!("goldens/arabert_preprocess.json")).unwrap();
    let goldens = goldens.as_array().unwrap();
    assert!(goldens.len() > 10);
    for golden in goldens {
        let text = golden["text"].as_str().unwrap();
        let expected = golden["expected"].as_str().unwrap();
        assert_eq!(Profile::Arabert.normalize(text).text(), expected, "{text:?}");
    }
}
