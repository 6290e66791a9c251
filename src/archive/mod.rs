//! Archives: files of documents are read, scored and written, in parts that survive
//! whatever happens to the process.
//!
//! | file | what it does |
//! |---|---|
//! | `settings` | what to score, and how |
//! | `input/` | files to rows, whatever their format and compression |
//! | `columns`, `dates`, `gold` | what the columns of an archive mean |
//! | `memory` | the texts that have been seen |
//! | `paths` | shown, extended, compared |
//! | `stages/` | the way of a row, on four threads |
//! | `output/` | parts, the manifest, resumption |
//! | `stats`, `evaluation`, `report/` | what is counted, and a page that shows it |
//! | `agreement/` | whether a precision answers as the reference does |
//! | `run` | all of it together |

mod agreement;
mod columns;
mod dates;
mod error;
mod evaluation;
mod gold;
mod input;
mod memory;
mod output;
mod paths;
mod progress;
mod report;
mod row;
mod run;
mod settings;
mod stages;
mod stats;

pub use agreement::{
    Agreement, Compared, Documents, ENOUGH_DOCUMENTS, Engines, Labels, MacroF1, TaskAgreement,
};
pub use columns::{ColumnNames, Columns, Keep};
pub use error::ArchiveError;
pub use evaluation::{ClassScore, Evaluation};
pub use gold::GoldColumn;
pub use input::{InputFile, InputFormat};
pub use output::{ModelIdentity, OutputFormat};
pub use progress::{Progress, Snapshot};
pub use row::{Reject, RejectReason};
pub use run::{Archive, Summary};
pub use settings::ArchiveSettings;
pub use stats::{Gold, Longest, Rejected, Stats, TaskStats};
