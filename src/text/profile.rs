//! Normalisation profiles: the forms of text that models were trained on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::mapped::{Mapped, Normalized};
use super::steps::{Class, Pattern, Step};

/// A form of text that a model was trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The text as it is.
    #[default]
    None,
    /// Tasnif's own: plain letters without marks, markup, addresses and bylines.
    News,
    /// `News` without what writers leave out at will: hamza on alef, the dots of a
    /// final ya and of ta marbuta, and punctuation, so that a model reads texts of
    /// many hands alike.
    Folded,
    /// The preprocessing of AraBERT v0.2 (`preprocess.py` of aub-mind/arabert).
    Arabert,
    /// The cleaning of CAMeLBERT's training text (Inoue et al., 2021): BERT's own,
    /// then CAMeL Tools' removal of diacritics and kashida.
    Camelbert,
}

/// A name that is no profile's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no text profile; there are none, news, folded, arabert and camelbert")]
pub struct UnknownProfile(String);

const NEWS: &[Step] = &[
    Step::HtmlEntities,
    Step::PresentationForms,
    Step::Remove(Class::Invisible),
    Step::Remove(Class::Tatweel),
    Step::Remove(Class::Diacritics),
    Step::AsciiDigits,
    Step::HtmlTags,
    Step::BlankMatches(Pattern::Urls),
    Step::BlankMatches(Pattern::Emails),
    Step::BlankMatches(Pattern::Mentions),
    Step::Hashtags,
    Step::CollapseRepeats(Class::Stretchable),
    Step::SqueezeSpaces,
    Step::Bylines,
];

/// What follows the steps of `News`.
const FOLDED: &[Step] = &[Step::PlainLetters, Step::Blank(Class::Punctuation), Step::SqueezeSpaces];

const ARABERT: &[Step] = &[
    Step::HtmlEntities,
    Step::Remove(Class::Tashkeel),
    Step::Remove(Class::Tatweel),
    Step::Replace(Pattern::ArabertUrls, "[رابط]"),
    Step::Replace(Pattern::ArabertEmails, "[بريد]"),
    Step::Replace(Pattern::ArabertMentions, "[مستخدم]"),
    Step::BlankMatches(Pattern::ArabertTags),
    Step::AsciiDigits,
    Step::CollapseRepeats(Class::NonDigits),
    Step::Isolate(Class::ArabertPunctuation),
    Step::SplitDigits,
    Step::Substitute('/', '-'),
    Step::Blank(Class::ArabertRejected),
    Step::SqueezeSpaces,
];

const CAMELBERT: &[Step] =
    &[Step::Remove(Class::BertInvalid), Step::Remove(Class::CamelDiacritics), Step::SqueezeSpaces];

/// Times that the steps are gone through, at most. Ordinary text is stable after
/// one; the second pass finds that out.
const MAX_PASSES: usize = 8;

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 5] =
        [Self::None, Self::News, Self::Folded, Self::Arabert, Self::Camelbert];

    /// The profile's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::News => "news",
            Self::Folded => "folded",
            Self::Arabert => "arabert",
            Self::Camelbert => "camelbert",
        }
    }

    fn steps(self) -> impl Iterator<Item = &'static Step> {
        let (first, then): (&[Step], &[Step]) = match self {
            Self::None => (&[], &[]),
            Self::News => (NEWS, &[]),
            Self::Folded => (NEWS, FOLDED),
            Self::Arabert => (ARABERT, &[]),
            Self::Camelbert => (CAMELBERT, &[]),
        };
        first.iter().chain(then)
    }

    /// `input` in this form. Normalising the result again changes nothing.
    ///
    /// The steps are gone through until they change nothing, since what one takes
    /// out can bring together what an earlier one looks for.
    pub fn normalize(self, input: &str) -> Normalized {
        let mut text = Mapped::new(input);
        for _ in 0..MAX_PASSES {
            let before = text.as_str().to_owned();
            text = self.steps().fold(text, |text, step| step.apply(text));
            if text.as_str() == before {
                break;
            }
        }
        text.finish()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == name);
        found.ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}
