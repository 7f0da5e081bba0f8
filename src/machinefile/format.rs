//! Formats Machinefiles. Comments, blank lines and the spelling of values are kept.

use std::{ops::Range, sync::Arc};

use ::kdl::{KdlDocument, KdlEntry, KdlNode};

use crate::host::kdl;

use super::{
    diagnostics::{MachinefileErrors, Source},
    syntax::{parse, text},
};

const INDENT: &str = "    ";

/// The longest line that nodes in braces are kept on, in characters.
const COLUMNS: usize = 100;

/// What is between the `}` of a node and its end, by its place in the text.
type Tails<'a> = [(Range<usize>, &'a str)];

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

/// Puts each node and comment on a line of its own, except nodes in braces that are on one line, with the indentation of its block, with one space between the parts
/// of a node. Comments and the spelling of values (`"debian-12"`, multi-line strings) stay as they are written. This is
/// not left to the crate's own formatter, which drops comments that are on the line of a node.
fn lay_out(document: &mut KdlDocument, tails: &Tails<'_>, depth: usize) {
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
        let tail = tail_of(node, tails);
        if let Some(line) = on_one_line(node, tails, depth) {
            node.set_children(line);
        } else if let Some(children) = node.children_mut() {
            lay_out(children, tails, depth + 1);
        }
        if let Some(format) = node.format_mut() {
            format.leading = lines(&format.leading, &indent, n == 0) + &indent;
            format.before_children = spaced(&format.before_children, " ");
            let tail = tail.unwrap_or(format.before_terminator.as_str());
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

fn tail_of<'a>(node: &KdlNode, tails: &Tails<'a>) -> Option<&'a str> {
    node.children()?;
    let end = node.span().offset() + node.span().len();
    let tail = (tails.iter()).find(|(range, _)| range.start <= end && end <= range.end);
    tail.map(|(_, tail)| *tail)
}

/// Returns what is in the braces of a node, if the author wrote it on the node's line, and it fits there. The node's
/// entries are laid out already.
fn on_one_line(node: &KdlNode, tails: &Tails<'_>, depth: usize) -> Option<KdlDocument> {
    let mut line = node.children().filter(|it| is_line(it, tails))?.clone();
    join(&mut line);
    let mut whole = node.clone();
    whole.set_children(line.clone());
    if let Some(format) = whole.format_mut() {
        format.leading.clear();
        format.before_children = spaced(&format.before_children, " ");
        format.before_terminator.clear();
        format.terminator.clear();
    }
    let text = whole.to_string();
    let width = INDENT.len() * depth + text.chars().count();
    (width <= COLUMNS && !text.contains('\n')).then_some(line)
}

/// Whether nodes are on one line, without comments.
fn is_line(document: &KdlDocument, tails: &Tails<'_>) -> bool {
    let is_space = |text: &str| text.bytes().all(|it| matches!(it, b' ' | b'\t' | b';'));
    let is_plain = |entry: &KdlEntry| {
        (entry.format()).is_none_or(|it| {
            let around = [&it.leading, &it.after_key, &it.after_eq, &it.trailing];
            around.into_iter().all(|text| is_space(text))
        })
    };
    let is_around =
        (document.format()).is_none_or(|it| is_space(&it.leading) && is_space(&it.trailing));
    is_around
        && document.nodes().iter().all(|node| {
            let is_around = node.format().is_none_or(|it| {
                let around = [
                    &it.leading,
                    &it.before_children,
                    &it.before_terminator,
                    &it.terminator,
                ];
                around.into_iter().all(|text| is_space(text))
            });
            is_around
                && node.entries().iter().all(is_plain)
                && tail_of(node, tails).is_none_or(is_space)
                && node.children().is_none_or(|it| is_line(it, tails))
        })
}

/// Puts nodes on one line: ` box "b"; cpus 2; `.
fn join(document: &mut KdlDocument) {
    for node in document.nodes_mut() {
        for entry in node.entries_mut() {
            if let Some(format) = entry.format_mut() {
                format.leading = " ".into();
                format.after_key.clear();
                format.after_eq.clear();
                format.trailing.clear();
            }
        }
        if let Some(children) = node.children_mut() {
            join(children);
        }
        if let Some(format) = node.format_mut() {
            format.leading = " ".into();
            format.before_children = " ".into();
            format.before_terminator.clear();
            format.terminator = ";".into();
        }
    }
    if let Some(format) = document.format_mut() {
        format.leading.clear();
        format.trailing = " ".into();
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
