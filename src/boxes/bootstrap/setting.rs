//! A file that a tool finds in /etc.

/// A file of settings or keys.
pub(in crate::boxes) struct Setting {
    /// Below /etc.
    pub path: String,
    pub content: Vec<u8>,
}

impl Setting {
    pub(super) fn text(path: impl Into<String>, content: impl Into<String>) -> Self {
        Setting {
            path: path.into(),
            content: content.into().into_bytes(),
        }
    }
}

/// The folder of keys below /etc, where boxes/bootstrap.sh looks for them.
pub(super) const KEYS: &str = "stead-keys";
