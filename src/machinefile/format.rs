//! Formats Machinefiles. Comments, blank lines and the spelling of values are kept.

use std::sync::Arc;

use kdl::{FormatConfig, KdlDocument};

use super::{
    diagnostics::{MachinefileErrors, Source},
    syntax::{parse, text},
};

const INDENT: &str = "    ";

/// Reads the text of a file that is to be formatted.
pub fn read(bytes: Vec<u8>, name: &str) -> Result<String, MachinefileErrors> {
    text(bytes, name).map_err(|error| MachinefileErrors::new(vec![*error]))
}

/// Returns the formatted text. `name` is the file's name in errors.
pub fn format(text: &str, name: &str) -> Result<String, MachinefileErrors> {
    // A comment on the line of a node may move again after the node has moved.
    let mut formatted = once(text, name)?;
    for _ in 0..3 {
        let again = once(&formatted, name)?;
        if again == formatted {
            break;
        }
        formatted = again;
    }
    Ok(formatted)
}

fn once(text: &str, name: &str) -> Result<String, MachinefileErrors> {
    let source = Arc::new(Source::new(name.to_string(), text.to_string()));
    let original = parse(&source).map_err(MachinefileErrors::new)?;
    let mut document = original.clone();
    keep_values(&mut document);
    document.autoformat_config(&FormatConfig::builder().indent(INDENT).build());
    keep_blank_lines(&original, &mut document, 0);
    let mut formatted = crate::host::kdl::text_of(&document);
    formatted.truncate(formatted.trim_end().len());
    formatted.push('\n');
    Ok(formatted)
}

/// Keeps values as they are written (`"debian-12"`, not `debian-12`; multi-line strings), with one space before
/// each.
fn keep_values(document: &mut KdlDocument) {
    for node in document.nodes_mut() {
        for entry in node.entries_mut() {
            entry.keep_format();
            if let Some(format) = entry.format_mut()
                && format.leading.trim().is_empty()
            {
                format.leading = " ".into();
            }
        }
        if let Some(children) = node.children_mut() {
            keep_values(children);
        }
    }
}

/// Restores blank lines between nodes and comments, one in place of several.
fn keep_blank_lines(original: &KdlDocument, document: &mut KdlDocument, depth: usize) {
    let indent = INDENT.repeat(depth);
    let nodes = original.nodes().iter().zip(document.nodes_mut());
    for (n, (before, node)) in nodes.enumerate() {
        if let Some(format) = node.format_mut() {
            let leading = before.format().map_or("", |format| format.leading.as_str());
            let mut lines: Vec<&str> = leading.split('\n').map(str::trim).collect();
            // The text after the last line end is the node's indentation.
            let own = lines.pop().unwrap_or_default();
            if !own.is_empty() {
                lines.push(own);
            }
            let mut text = String::new();
            let mut blank = n == 0;
            for line in lines {
                if line.is_empty() {
                    if !blank {
                        text.push('\n');
                    }
                    blank = true;
                } else {
                    text.push_str(&format!("{indent}{line}\n"));
                    blank = false;
                }
            }
            text.push_str(&indent);
            format.leading = text;
        }
        if let (Some(before), Some(children)) = (before.children(), node.children_mut()) {
            keep_blank_lines(before, children, depth + 1);
        }
    }
}
