//! What a database's error means for the one who asked.
//!
//! Diesel passes SQLite's result codes on as their texts only, which SQLite keeps fixed (`sqlite3_errstr`), and of
//! Postgres' codes only a few; so the texts are told apart here, and nowhere else. What is not recognised, as in a
//! server that speaks another language than English, is taken for what may pass.

use diesel::result::{DatabaseErrorKind, Error};

use super::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = one_line(&error.to_string());
        match error {
            Error::DatabaseError(
                DatabaseErrorKind::UniqueViolation
                | DatabaseErrorKind::ForeignKeyViolation
                | DatabaseErrorKind::NotNullViolation
                | DatabaseErrorKind::CheckViolation,
                _,
            ) => StoreError::Broken(format!("the database refused a row: {text}")),
            Error::DatabaseError(..) if is_bad_value(&text) => {
                StoreError::Broken(format!("the database refused a value: {text}"))
            }
            Error::DatabaseError(..) if !is_damage(&text) => StoreError::Retry(text),
            // A connection whose transaction is in doubt is replaced by a new one.
            Error::BrokenTransactionManager | Error::RollbackErrorOnCommit { .. } => StoreError::Retry(text),
            Error::RollbackTransaction | Error::AlreadyInTransaction => StoreError::Retry(text),
            _ => StoreError::Broken(format!("the database cannot be used as it is: {text}")),
        }
    }
}

impl StoreError {
    /// A row that says what this version does not know.
    pub(super) fn bad_row(table: &str, column: &str, value: &str) -> Self {
        StoreError::Broken(format!("the database holds {value:?} as {table}.{column}, which is none"))
    }
}

/// What is refused however often it is sent: errors of class 22 (data exception) in Postgres' words.
fn is_bad_value(text: &str) -> bool {
    let says = |words: &str| text.contains(words);
    says("invalid byte sequence for encoding")
        || says("unsupported Unicode escape sequence")
        || says("value too long for type")
        || says("out of range")
        || says("invalid input syntax")
}

/// What does not pass by itself: in SQLite's words, then in those of Postgres.
fn is_damage(text: &str) -> bool {
    let says = |words: &str| text.contains(words);
    says("malformed")
        || says("not a database")
        || (says("does not exist") && (says("relation") || says("function") || says("column")))
        || says("query returned no rows")
        || says("invalid page in block")
        || says("could not read block")
        || says("permission denied")
}

/// SQLite's texts may run over several lines where they quote a statement.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
