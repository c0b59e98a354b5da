//! The forms of dirty ranges, as the command line names them.

use clap::ValueEnum;
use tidelock::snapshot::DirtyFormat;

/// The form of dirty ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DirtyForm {
    /// A bit for each page of 4 KiB.
    Bitmap,
    /// Lines `OFFSET LENGTH`.
    Ranges,
    /// A JSON array of objects with `start` and `length`.
    Json,
}

impl From<DirtyForm> for DirtyFormat {
    fn from(form: DirtyForm) -> Self {
        match form {
            DirtyForm::Bitmap => Self::Bitmap,
            DirtyForm::Ranges => Self::Ranges,
            DirtyForm::Json => Self::Json,
        }
    }
}
