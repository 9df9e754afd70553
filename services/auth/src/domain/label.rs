//! Labels and names that operators give: what they may consist of.

use std::collections::BTreeMap;

/// Labels of a node or link.
pub type Labels = BTreeMap<String, String>;

/// Labels of one node.
const LABELS: usize = 32;

/// Characters of a label's key or value.
const LABEL_CHARS: usize = 63;

/// Characters of the name of an operator, CMDB or service: with its collection it fits a common name (64).
const NAME_CHARS: usize = 40;

/// Characters of a display name, host name or version.
const TEXT_CHARS: usize = 255;

/// What is wrong with a label or name, in words for whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error("{0} labels are too many; {LABELS} are the most")]
    TooMany(usize),
    #[error("label key {0:?} is not 1 to {LABEL_CHARS} of a-z, 0-9, '.', '_', '-', '/'")]
    Key(String),
    #[error("the value of label {0:?} is longer than {LABEL_CHARS} characters or has unprintable ones")]
    Value(String),
    #[error(
        "name {0:?} is not 1 to {NAME_CHARS} of a-z, 0-9, '.', '_', '-', beginning with a letter or digit"
    )]
    Name(String),
    #[error("{0} is longer than {TEXT_CHARS} characters or has unprintable ones")]
    Text(&'static str),
}

/// # Errors
/// Too many labels, or one that is not well formed.
pub fn check_labels(labels: &Labels) -> Result<(), LabelError> {
    if labels.len() > LABELS {
        return Err(LabelError::TooMany(labels.len()));
    }
    for (key, value) in labels {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
        if key.is_empty() || key.len() > LABEL_CHARS || !key.chars().all(allowed) {
            return Err(LabelError::Key(key.chars().take(LABEL_CHARS).collect()));
        }
        if value.chars().count() > LABEL_CHARS || value.chars().any(char::is_control) {
            return Err(LabelError::Value(key.clone()));
        }
    }
    Ok(())
}

/// Checks the name of an operator, CMDB or service.
///
/// # Errors
/// It is not well formed.
pub fn check_name(name: &str) -> Result<(), LabelError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if begins && name.len() <= NAME_CHARS && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(LabelError::Name(name.chars().take(NAME_CHARS).collect()))
    }
}

/// Checks a text that is shown to people and means nothing to us.
///
/// # Errors
/// It is too long or cannot be printed.
pub fn check_text(what: &'static str, text: &str) -> Result<(), LabelError> {
    if text.chars().count() > TEXT_CHARS || text.chars().any(char::is_control) {
        return Err(LabelError::Text(what));
    }
    Ok(())
}
