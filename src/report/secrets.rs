//! Values that are never shown: those of secret variables of the environment, and of the variables that a Machinefile
//! uses.

use std::{
    borrow::Cow,
    sync::{Mutex, PoisonError},
};

/// Shorter values are parts of other words, and would hide those.
const SHORTEST: usize = 6;

/// Values, and what is shown instead of each. Longer ones are first: one that is a part of another does not keep that
/// one from being found.
static VALUES: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// From now on, shows `instead` in place of this value, which is, or may be, a secret.
pub fn hide(value: &str, instead: &str) {
    let mut values = VALUES.lock().unwrap_or_else(PoisonError::into_inner);
    // Each line of a longer one: lines may be written apart.
    for line in value.lines().map(str::trim) {
        if line.len() < SHORTEST {
            continue;
        }
        for form in forms(line) {
            if !values.iter().any(|(known, _)| *known == form) {
                values.push((form, instead.to_string()));
            }
        }
    }
    values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
}

/// Returns how a value may be written: as it is, in quotes of Rust, in quotes of a shell.
pub(crate) fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![
        value.to_string(),
        value.escape_debug().to_string(),
        value.replace('\'', "'\\''"),
    ];
    forms.dedup();
    forms
}

/// Returns the text without the values that are hidden.
pub fn without(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for (value, instead) in VALUES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if text.contains(value.as_str()) {
            text = text.replace(value.as_str(), instead).into();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_hidden_however_it_is_quoted() {
        hide("se\"cret'of-a-test\nab", "${env.SECRET}");
        for shown in [
            "x se\"cret'of-a-test y",
            "x se\\\"cret\\'of-a-test y",
            "x se\"cret'\\''of-a-test y",
        ] {
            assert_eq!(without(shown), "x ${env.SECRET} y");
        }
        // Two letters hide nothing.
        assert_eq!(without("ab"), "ab");
    }
}
