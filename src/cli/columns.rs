//! Options that name the columns of a suite's file.

use brevity::eval::NamedColumns;
use clap::Args;

/// Which columns of a file hold what.
#[derive(Debug, Clone, Args)]
pub struct Columns {
    /// Column of the problem [default: that of the suite's form; of `file:FILE` the recipe's, else `problem`]
    #[arg(long, value_name = "NAME")]
    pub question_column: Option<String>,

    /// Column of the reference answer [default: as above, else `answer`]
    #[arg(long, value_name = "NAME")]
    pub answer_column: Option<String>,

    /// Column of the level by which results are reported [default: as above, else none]
    #[arg(long, value_name = "NAME")]
    pub level_column: Option<String>,
}

impl Columns {
    /// The columns that were named, those of `otherwise` where none was.
    pub fn or(&self, otherwise: NamedColumns) -> NamedColumns {
        NamedColumns {
            question: self.question_column.clone().or(otherwise.question),
            answer: self.answer_column.clone().or(otherwise.answer),
            level: self.level_column.clone().or(otherwise.level),
        }
    }
}
