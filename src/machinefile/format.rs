//! `stead fmt`: one form for layout; comments, blank lines and the way values are written stay.

use std::sync::Arc;

use kdl::{FormatConfig, KdlDocument};

use super::{
    diagnostics::{MachinefileErrors, Source},
    syntax::{parse, text},
};

const INDENT: &str = "    ";

/// The text of a file that is to be formatted.
pub fn read(bytes: Vec<u8>, name: &str) -> Result<String, MachinefileErrors> {
    text(bytes, name).map_err(|error| MachinefileErrors::new(vec![*error]))
}

/// The text in the one form. `name` is what errors call it.
pub fn format(text: &str, name: &str) -> Result<String, MachinefileErrors> {
    // A comment that shared a line with a node may move once more when its node has moved.
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

/// A value stays as it was written (`"debian-12"` and not `debian-12`, a multi-line string over
/// its lines); the space before it becomes one.
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

/// Blank lines between nodes and comments come back, one where there were more.
fn keep_blank_lines(original: &KdlDocument, document: &mut KdlDocument, depth: usize) {
    let indent = INDENT.repeat(depth);
    let nodes = original.nodes().iter().zip(document.nodes_mut());
    for (n, (before, node)) in nodes.enumerate() {
        if let Some(format) = node.format_mut() {
            let leading = before.format().map_or("", |format| format.leading.as_str());
            let mut lines: Vec<&str> = leading.split('\n').map(str::trim).collect();
            // What follows the last line end is the node's own indentation.
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
