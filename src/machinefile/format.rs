//! Formats Machinefiles. Comments, blank lines and the spelling of values are kept.

use std::{ops::Range, sync::Arc};

use ::kdl::KdlDocument;

use crate::host::kdl;

use super::{
    diagnostics::{MachinefileErrors, Source},
    syntax::{parse, text},
};

const INDENT: &str = "    ";

/// Reads the text of a file that is to be formatted.
pub fn read(bytes: Vec<u8>, name: &str) -> Result<String, MachinefileErrors> {
    text(bytes, name).map_err(|error| MachinefileErrors::new(vec![*error]))
}

/// Returns the formatted text: as UTF-8 without a byte order mark, with lines that end in LF. `name` is the file's name in
/// errors.
pub fn format(text: &str, name: &str) -> Result<String, MachinefileErrors> {
    // KDL reads CRLF in a string of several lines as LF, so no value changes.
    let text = &text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n");
    let source = Arc::new(Source::new(name.to_string(), text.to_string()));
    let mut document = parse(&source).map_err(MachinefileErrors::new)?;
    let tails = kdl::tails(text)
        .into_iter()
        .map(|tail| (tail.clone(), &text[tail]))
        .collect::<Vec<_>>();
    lay_out(&mut document, &tails, 0);
    let mut formatted = kdl::text_of(&document);
    formatted.truncate(formatted.trim_end().len());
    formatted.push('\n');
    Ok(formatted)
}

/// Puts each node and comment on a line of its own with the indentation of its block, with one space between the parts
/// of a node. Comments and the spelling of values (`"debian-12"`, multi-line strings) stay as they are written. This is
/// not left to the crate's own formatter, which drops comments that are on the line of a node.
fn lay_out(document: &mut KdlDocument, tails: &[(Range<usize>, &str)], depth: usize) {
    let indent = INDENT.repeat(depth);
    let is_empty = document.nodes().is_empty();
    for (n, node) in document.nodes_mut().iter_mut().enumerate() {
        for entry in node.entries_mut() {
            if let Some(format) = entry.format_mut() {
                format.leading = spaced(&format.leading, " ");
                format.after_key = spaced(&format.after_key, "");
                format.after_eq = spaced(&format.after_eq, "");
                format.trailing = spaced(&format.trailing, "");
            }
        }
        let end = node.span().offset() + node.span().len();
        let tail = (tails.iter()).find(|(range, _)| range.start <= end && end <= range.end);
        let tail = tail.filter(|_| node.children().is_some());
        if let Some(children) = node.children_mut() {
            lay_out(children, tails, depth + 1);
        }
        if let Some(format) = node.format_mut() {
            format.leading = lines(&format.leading, &indent, n == 0) + &indent;
            format.before_children = spaced(&format.before_children, " ");
            let tail = tail.map_or(format.before_terminator.as_str(), |(_, tail)| tail);
            format.before_terminator = spaced(tail, "");
            format.terminator = match format.terminator.trim() {
                comment if comment.starts_with("//") => format!(" {comment}\n"),
                _ => "\n".into(),
            };
        }
    }
    if let Some(format) = document.format_mut() {
        let starts = is_empty && format.leading.trim().is_empty();
        format.leading = lines(&format.leading, &indent, true);
        format.trailing = lines(&format.trailing, &indent, starts);
        if let Some(outer) = depth.checked_sub(1) {
            format.leading.insert(0, '\n');
            format.trailing.push_str(&INDENT.repeat(outer));
        }
    }
}

/// Returns what is between two parts of a node: `space`, unless it has a comment.
fn spaced(between: &str, space: &str) -> String {
    match between.trim() {
        "" => space.into(),
        // Where the line goes on after a backslash, and what is commented out.
        _ if between.contains('\n') => between.into(),
        comment => format!(" {comment}{space}"),
    }
}

/// Returns the comments in `between`, what is between two nodes, as lines. `at_start`: a blank line would be the first of its block.
fn lines(between: &str, indent: &str, at_start: bool) -> String {
    let mut text = String::new();
    let mut blank = at_start;
    // Nodes that are commented out and comments of several lines have an indentation of their own.
    let mut kept = false;
    let mut lines: Vec<&str> = between.split('\n').collect();
    // The text after the last line end is the indentation of what comes next.
    if lines.last().is_some_and(|last| last.trim().is_empty()) {
        lines.pop();
    }
    for line in lines {
        let inner = line.trim();
        if inner.is_empty() {
            if !blank {
                text.push('\n');
            }
            blank = true;
            continue;
        }
        if kept {
            text.push_str(line.trim_end());
        } else {
            text.push_str(indent);
            text.push_str(inner);
        }
        text.push('\n');
        blank = false;
        kept |= inner.starts_with("/-") || (inner.contains("/*") && !inner.ends_with("*/"));
    }
    text
}
