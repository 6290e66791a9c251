//! What stands before the first sentence of a story and says who wrote it and
//! where: «دبي - «الخليج»:», «القاهرة (رويترز) -», «RT».
//!
//! It is removed since it names the outlet, not the subject: nearly half of one
//! outlet's health stories open with it and none of its sport does, so that a
//! model learns the byline instead of the topic.

use std::sync::LazyLock;

use regex::Regex;

use super::mapped::Mapped;
use super::steps::compile;

/// Agencies and outlets, as expressions. The names of some are common words or
/// places, so a name alone is no byline: see [`BYLINE`].
const AGENCIES: &str = r"الخليج|وكالات|وكالة الأنباء الألمانية|وام|واس|قنا|كونا|بترا|وفا|سبأ|سانا|رويترز|فرانس برس|أسوشيتد برس|الأناضول|شينخوا|سبوتنيك|العربية\.نت|سكاي نيوز عربية|الجزيرة نت|هسبريس|بي بي سي|سي ان ان|CNN|BBC|AFP|AP|Reuters|(?:أ|ا) ?\. ?ف ?\. ?ب|(?:أ|ا) ف ب|(?:أ|ا)ف ب|د ?\. ?ب ?\. ?(?:أ|ا)|د ب (?:أ|ا)|يو ?\. ?بي ?\. ?آي|يو بي آي|أ ?\. ?ش ?\. ?أ|أ ش أ";

/// A byline at the start is an agency, perhaps after a place, and the mark that parts it from the
/// story. Without the mark it is a sentence about the agency («قالت "رويترز" إن»), and so it is
/// without a mark before a name that stands bare (`كأس الخليج: …`, `مصدر لبي بي سي: …`).
static BYLINE: LazyLock<Regex> = LazyLock::new(|| {
    let place = r"[\p{Arabic}،]{2,20}(?: [\p{Arabic}،]{1,20}){0,2}";
    let long_place = r"[\p{Arabic}، ]{2,40}?\s?";
    let mark = r"\s?[-–—:/]{1,2}\s?";
    let quoted = format!(r#"[«"“(\[]\s?(?:{AGENCIES})\s?[»"”)\]](?:\s?[،,]\s?وكالات)?"#);
    let forms = [
        format!(r"{place}{mark}{quoted}\s?[-–—:.،]{{0,2}}"),
        format!(r"(?:{place}\s?)?{quoted}\s?[-–—:]{{1,2}}"),
        format!(r"{long_place}{quoted}\s?[-–—]{{1,2}}"),
        format!(r"(?:{place}{mark})?(?:{AGENCIES})\s?[-–—:]{{1,2}}"),
    ];
    compile(&format!(r"^(?:{})\s?", forms.join("|")))
});

/// A retweet mark, left over from «RT @someone:».
static RETWEET: LazyLock<Regex> = LazyLock::new(|| compile(r"^(?:RT\b\s?:?|[:\-–—]+)\s?"));

/// `text`, whose spaces are squeezed, without bylines at its start. A text that
/// is nothing but a byline is left as it is.
pub(super) fn strip(mut text: Mapped) -> Mapped {
    let mut cut = 0;
    loop {
        let rest = text.as_str().get(cut..).unwrap_or_default();
        let found = BYLINE.find(rest).or_else(|| RETWEET.find(rest));
        let length = found.map_or(0, |found| found.end());
        if length == 0 || length == rest.len() {
            break;
        }
        cut += length;
    }
    text.cut_start(cut);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(text: &str) -> String {
        strip(Mapped::new(text)).as_str().to_owned()
    }

    #[test]
    fn bylines_go() {
        for byline in [
            "دبي: «الخليج» ",
            "أبوظبي - \"الخليج\" ",
            "رأس الخيمة:«الخليج»: ",
            "القاهرة (رويترز) - ",
            "بيروت - (أ ف ب): ",
            "رويترز - ",
            "غزة «الخليج»، وكالات: ",
            "دبي، الإمارات العربية المتحدة (CNN)-- ",
            "RT : ",
        ] {
            assert_eq!(stripped(&format!("{byline}افتتح الوزير المعرض")), "افتتح الوزير المعرض");
        }
    }

    #[test]
    fn names_inside_a_sentence_stay() {
        for text in [
            "الخليج العربي يشهد حركة ملاحة كثيفة",
            "أعلن الاتحاد الدولي لكرة القدم (فيفا) قرعة البطولة",
            "قالت الوزارة في بيان",
            "قالت «رويترز» إن الاجتماع تأجل",
            "أعلنت هيئة الإذاعة البريطانية (BBC) إغلاق مكاتبها",
            "كأس الخليج: العراق يهزم عمان",
            "فاز نادي «الخليج» على ضيفه",
            "«الخليج» وكالات السفر تخفض أسعارها",
            "وزير الصحة لبي بي سي: اللقاح آمن",
            "طريقنا: إلى المونديال",
            "«الخليج»",
        ] {
            assert_eq!(stripped(text), text);
        }
    }
}
