//! `stead fmt`.

use std::sync::Arc;

use kdl::FormatConfig;

use super::{
    diagnostics::{MachinefileErrors, Source},
    syntax::parse,
};

/// The text in the one form, with its comments. `name` is what errors call it.
pub fn format(text: &str, name: &str) -> Result<String, MachinefileErrors> {
    let source = Arc::new(Source {
        name: name.to_string(),
        text: text.to_string(),
    });
    let mut document = parse(&source).map_err(MachinefileErrors::new)?;
    document.autoformat_config(&FormatConfig::builder().indent("    ").build());
    Ok(document.to_string())
}
