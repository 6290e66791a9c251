//! Made-up documents that look like Arabic news to a tokenizer: words of common stems with
//! the particles and endings that Arabic writes onto them, as often as words are in text
//! (Zipf), in sentences, and in lengths that spread as those of articles do (log-normal).

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_distr::{Distribution, LogNormal, Zipf};

use super::work::random;
use crate::pipeline::Document;

/// Words of a text, at least and at most: what a flash is, and what a long read is.
const WORDS: std::ops::RangeInclusive<f64> = 5.0..=1_500.0;
/// Words of a title.
const TITLE_WORDS: std::ops::RangeInclusive<usize> = 4..=10;
/// Words of a sentence.
const SENTENCE_WORDS: std::ops::RangeInclusive<usize> = 6..=30;

/// The most frequent first.
const STEMS: [&str; 96] = [
    "في",
    "من",
    "على",
    "إلى",
    "أن",
    "عن",
    "التي",
    "مع",
    "قال",
    "بعد",
    "هذا",
    "كان",
    "بين",
    "رئيس",
    "حكومة",
    "دولة",
    "وزير",
    "عام",
    "يوم",
    "عمل",
    "شركة",
    "مدينة",
    "منطقة",
    "اقتصاد",
    "سوق",
    "نفط",
    "سعر",
    "فريق",
    "مباراة",
    "لاعب",
    "مدرب",
    "بطولة",
    "هدف",
    "جمهور",
    "صحة",
    "مستشفى",
    "طبيب",
    "مرض",
    "علاج",
    "دراسة",
    "باحث",
    "جامعة",
    "طالب",
    "مدرسة",
    "تعليم",
    "تقنية",
    "برنامج",
    "هاتف",
    "شبكة",
    "بيانات",
    "فيلم",
    "مخرج",
    "كتاب",
    "رواية",
    "معرض",
    "متحف",
    "مهرجان",
    "طقس",
    "مطر",
    "حرارة",
    "رياح",
    "زلزال",
    "شرطة",
    "محكمة",
    "قاض",
    "قانون",
    "حكم",
    "تحقيق",
    "جريمة",
    "حادث",
    "طريق",
    "مطار",
    "طائرة",
    "سفينة",
    "ميناء",
    "قطار",
    "مشروع",
    "بناء",
    "سكان",
    "أسرة",
    "طفل",
    "امرأة",
    "مجتمع",
    "انتخابات",
    "برلمان",
    "حزب",
    "معارضة",
    "اتفاق",
    "مفاوضات",
    "سلام",
    "حرب",
    "جيش",
    "حدود",
    "لاجئ",
    "منظمة",
    "قمة",
];
const BEFORE: [&str; 8] = ["", "ال", "و", "وال", "ب", "بال", "لل", "ف"];
const AFTER: [&str; 7] = ["", "ات", "ين", "ون", "ه", "ها", "هم"];

/// `count` documents with texts of `median_words` words in the median; `sigma` is the standard
/// deviation of the logarithm of their number. The same arguments give the same documents.
pub(super) fn generate(count: usize, median_words: f64, sigma: f64, seed: u64) -> Vec<Document> {
    let mut random = random(seed);
    let lengths = LogNormal::new(median_words.ln(), sigma).ok();
    let stems = Zipf::new(STEMS.len() as f64, 1.0).ok();
    let document = |_| {
        let words = lengths.map_or(median_words, |lengths| lengths.sample(&mut random));
        let words = words.clamp(*WORDS.start(), *WORDS.end()).round() as usize;
        let word = |random: &mut _| word(stems.as_ref(), random);
        let title_words = random.random_range(TITLE_WORDS);
        let title: Vec<String> = (0..title_words).map(|_| word(&mut random)).collect();
        let mut text = String::new();
        let mut left_of_sentence = random.random_range(SENTENCE_WORDS);
        for index in 1..=words {
            text.push_str(&word(&mut random));
            left_of_sentence -= 1;
            if index == words || left_of_sentence == 0 {
                text.push('.');
                left_of_sentence = random.random_range(SENTENCE_WORDS);
            }
            if index < words {
                text.push(' ');
            }
        }
        Document { id: String::new(), title: title.join(" "), text }
    };
    (0..count).map(document).collect()
}

fn word(stems: Option<&Zipf<f64>>, random: &mut impl Rng) -> String {
    let rank = stems.map_or(1.0, |stems| stems.sample(random)) as usize;
    let stem = STEMS.get(rank.saturating_sub(1)).copied().unwrap_or_default();
    let mut pick = |parts: &[&'static str]| parts.choose(random).copied().unwrap_or_default();
    // Particles stand as they are.
    if stem.chars().count() <= 3 {
        return stem.to_owned();
    }
    [pick(&BEFORE), stem, pick(&AFTER)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_documents_and_lengths_spread() {
        let documents = generate(400, 100.0, 0.9, 7);
        assert_eq!(documents, generate(400, 100.0, 0.9, 7));
        assert_ne!(documents, generate(400, 100.0, 0.9, 8));
        let words = |document: &Document| document.text.split_whitespace().count();
        let mut lengths: Vec<usize> = documents.iter().map(words).collect();
        lengths.sort_unstable();
        assert!((80..125).contains(&lengths[200]), "median {}", lengths[200]);
        assert!(lengths[20] < 35 && lengths[380] > 300, "{} {}", lengths[20], lengths[380]);
        assert!(lengths[0] >= 5 && lengths[399] <= 1_500);
        let same = generate(3, 100.0, 0.0, 1);
        assert!(same.iter().all(|document| words(document) == 100));
    }
}
