//! Recognises user-data as cloud-init does (cloudinit.readthedocs.io, "User-data formats"). What cloud-init would
//! ignore is an error before anything boots.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use crate::host::open;

use super::{
    diagnostics::{Errors, MachinefileError, Spanned},
    paths::{Wants, resolve},
    syntax::{FileInfo, Files},
};

/// The largest user-data, in bytes. Clouds accept some tens of KiB.
const LARGEST: u64 = 64 << 20;

/// User-data, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserData {
    pub form: Form,
    pub content: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One document, with this MIME type.
    Part(&'static str),
    /// A MIME message with headers of its own.
    Mime,
}

/// The starts of documents, in any case, and their types. The longest match counts.
const BEGINNINGS: [(&str, &str); 9] = [
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("#cloud-config", "text/cloud-config"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("#part-handler", "text/part-handler"),
    ("#!", "text/x-shellscript"),
    ("## template: jinja", "text/jinja2"),
];

/// Types of parts that cloud-init acts on, beside those of [`BEGINNINGS`].
const OTHER_TYPES: [&str; 5] = [
    "text/plain",
    "text/x-not-multipart",
    "text/x-shellscript-per-boot",
    "text/x-shellscript-per-instance",
    "text/x-shellscript-per-once",
];

const GZIP_TYPES: [&str; 8] = [
    "application/gzip",
    "application/gzip-compressed",
    "application/gzipped",
    "application/x-compress",
    "application/x-compressed",
    "application/x-gunzip",
    "application/x-gzip",
    "application/x-gzip-compressed",
];

/// The largest uncompressed user-data, in bytes. EC2 accepts 16 KiB.
const LIMIT: u64 = 8 << 20;

/// How deep MIME archives may be nested.
const DEPTH: usize = 8;

pub const FORMS: &str = "begin it with #cloud-config, #!, #cloud-boothook, #include, #cloud-config-archive, #part-handler or ## template: jinja, or use a MIME multi-part archive; gzip may compress it";

/// Resolves the file of `user-data`, which must exist and be of a kind that cloud-init accepts.
pub(super) fn file(
    path: &Spanned<String>,
    file: &FileInfo,
    files: &Files,
    errors: &mut Errors,
) -> Option<PathBuf> {
    let found = resolve(path, file, &files.root, Wants::File, errors)?;
    match read(&found) {
        Ok(_) => Some(found),
        Err(message) => {
            errors.push(
                MachinefileError::new(
                    &path.span,
                    format!("cannot use user-data {}: {message}", path.value),
                    "cloud-init would ignore it",
                )
                .help(FORMS),
            );
            None
        }
    }
}

/// Reads user-data and recognises its form.
///
/// # Errors
/// Why cloud-init would ignore it.
pub fn read(path: &Path) -> Result<UserData, String> {
    recognise(open::bytes_in_place(path, LARGEST).map_err(|error| error.to_string())?)
}

fn recognise(content: Vec<u8>) -> Result<UserData, String> {
    let content = uncompressed(content)?;
    if content.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty".into());
    }
    if let Some(kind) = beginning(&content) {
        if kind == "text/cloud-config" && std::str::from_utf8(&content).is_err() {
            return Err("it is not UTF-8 text".into());
        }
        return Ok(UserData {
            form: Form::Part(kind),
            content,
        });
    }
    let head = content[..content.len().min(4096)].to_ascii_lowercase();
    if memchr::memmem::find(&head, b"mime-version:").is_some() {
        let text = std::str::from_utf8(&content).map_err(|_| "it is not UTF-8 text")?;
        let mut seen = Seen::default();
        message(without_envelope(text), 0, &mut seen)?;
        if let Some(unknown) = seen.unknown.filter(|_| !seen.handler) {
            return Err(format!(
                "it has a part of type {unknown}, which cloud-init does not know"
            ));
        }
        return Ok(UserData {
            form: Form::Mime,
            content: without_envelope(text).as_bytes().to_vec(),
        });
    }
    let text = String::from_utf8_lossy(&content);
    let first: String = text
        .trim_start()
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(60)
        .collect();
    Err(format!(
        "its first line is {first:?}, which cloud-init does not know"
    ))
}

fn uncompressed(content: Vec<u8>) -> Result<Vec<u8>, String> {
    let too_long = || format!("it is larger than {} MiB", LIMIT >> 20);
    if !content.starts_with(&[0x1f, 0x8b]) {
        return if content.len() as u64 > LIMIT {
            Err(too_long())
        } else {
            Ok(content)
        };
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(&content[..])
        .take(LIMIT + 1)
        .read_to_end(&mut plain)
        .map_err(|error| format!("it is not valid gzip ({error})"))?;
    if plain.len() as u64 > LIMIT {
        return Err(too_long());
    }
    Ok(plain)
}

/// Returns the type of a document, by its start.
fn beginning(content: &[u8]) -> Option<&'static str> {
    let content = content.trim_ascii_start();
    BEGINNINGS
        .iter()
        .find(|(beginning, _)| {
            content
                .get(..beginning.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(beginning.as_bytes()))
        })
        .map(|(_, kind)| *kind)
}

/// A mailbox's line before the headers, which some tools write.
fn without_envelope(text: &str) -> &str {
    match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("From ") => rest,
        _ => text,
    }
}

#[derive(Default)]
struct Seen {
    parts: usize,
    unknown: Option<String>,
    /// A part that may make unknown types known.
    handler: bool,
}

/// Checks a message and all its parts (RFC 2045, RFC 2046).
fn message(text: &str, depth: usize, seen: &mut Seen) -> Result<(), String> {
    if depth > DEPTH {
        return Err(format!("it is nested more than {DEPTH} times"));
    }
    let (headers, body) = headers(text);
    let content_type = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        .map_or("text/plain", |(_, value)| value.as_str());
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if !kind.starts_with("multipart/") {
        seen.parts += 1;
        seen.handler |= kind == "text/part-handler";
        let known = OTHER_TYPES.contains(&kind.as_str())
            || GZIP_TYPES.contains(&kind.as_str())
            || BEGINNINGS.iter().any(|(_, known)| *known == kind);
        if !known {
            seen.unknown.get_or_insert(kind);
        }
        return Ok(());
    }
    let boundary = parameter(content_type, "boundary")
        .ok_or("its Content-Type is multipart without a boundary")?;
    let before = seen.parts;
    for part in parts(body, &boundary) {
        message(&part, depth + 1, seen)?;
    }
    if seen.parts == before {
        return Err(format!(
            "it has no part: there is no line --{boundary}, its boundary"
        ));
    }
    Ok(())
}

/// Returns the headers, unfolded, and the text after them.
fn headers(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        let line = line.trim_end_matches('\r');
        if line.is_empty() {
            return (found, after);
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = found.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            found.push((name.trim().to_string(), value.trim().to_string()));
        } else {
            // Not a header: the body begins here.
            return (found, rest);
        }
        rest = after;
    }
    (found, rest)
}

fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case(name) && !value.is_empty()).then(|| value.to_string())
    })
}

/// Returns the parts between the lines of a boundary.
fn parts(body: &str, boundary: &str) -> Vec<String> {
    let (open, close) = (format!("--{boundary}"), format!("--{boundary}--"));
    let mut found = Vec::new();
    let mut part: Option<String> = None;
    for line in body.lines() {
        let bare = line.trim_end();
        if bare == open || bare == close {
            found.extend(part.take());
            if bare == close {
                return found;
            }
            part = Some(String::new());
        } else if let Some(part) = &mut part {
            part.push_str(line);
            part.push('\n');
        }
    }
    // Python's parser, which cloud-init uses, accepts the end of the text as the last boundary.
    found.extend(part);
    found
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn form(text: &str) -> Result<Form, String> {
        recognise(text.into()).map(|data| data.form)
    }

    #[test]
    fn documents_are_told_apart_by_how_they_begin() {
        for (text, kind) in [
            ("#cloud-config\n{}\n", "text/cloud-config"),
            ("#!/bin/sh\ntrue\n", "text/x-shellscript"),
            ("#cloud-boothook\ntrue\n", "text/cloud-boothook"),
            ("#include\nhttp://10.0.2.2/a\n", "text/x-include-url"),
            ("#include-once\nhttp://a\n", "text/x-include-once-url"),
            ("#cloud-config-archive\n- a\n", "text/cloud-config-archive"),
            ("#cloud-config-jsonp\n[]\n", "text/cloud-config-jsonp"),
            ("#part-handler\n", "text/part-handler"),
            ("## template: jinja\n#cloud-config\n", "text/jinja2"),
            ("\n  #Cloud-Config\n", "text/cloud-config"),
            // A script may print a MIME header.
            ("#!/bin/sh\necho MIME-Version: 1.0\n", "text/x-shellscript"),
        ] {
            assert_eq!(form(text), Ok(Form::Part(kind)), "{text}");
        }
    }

    #[test]
    fn compressed_user_data_is_what_it_is_inside() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"#!/bin/sh\ntrue\n").unwrap();
        let mut bytes = gzip.finish().unwrap();
        let data = recognise(bytes.clone()).unwrap();
        assert_eq!(data.form, Form::Part("text/x-shellscript"));
        assert_eq!(data.content, b"#!/bin/sh\ntrue\n");
        bytes.truncate(bytes.len() - 6);
        assert!(recognise(bytes).unwrap_err().contains("not valid gzip"));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&vec![b'#'; (LIMIT + 1) as usize]).unwrap();
        let bomb = gzip.finish().unwrap();
        assert!(recognise(bomb).unwrap_err().contains("larger than 8 MiB"));
    }

    const NESTED: &str = "From nobody Fri Jan  1 00:00:00 2021\nContent-Type: multipart/mixed;\n boundary=\"==a==\"\nMIME-Version: 1.0\n\n--==a==\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n--b--\n--==a==\nContent-Type: text/cloud-config\n\n{}\n--==a==--\n";

    #[test]
    fn archives_are_looked_through() {
        let data = recognise(NESTED.into()).unwrap();
        assert_eq!(data.form, Form::Mime);
        assert!(
            data.content
                .starts_with(b"Content-Type: multipart/mixed;\n")
        );
        assert_eq!(form(&NESTED.replace('\n', "\r\n")), Ok(Form::Mime));
    }

    #[test]
    fn what_cloud_init_would_leave_aside_is_told() {
        let errors: Vec<String> = [
            "",
            " \n",
            "hello\nworld\n",
            "users: []\n",
            &NESTED.replace("text/cloud-config", "text/cloudconfig"),
            &NESTED.replace("boundary=\"==a==\"", "charset=utf-8"),
            &NESTED.replace("--==a==", "--==c=="),
        ]
        .iter()
        .map(|text| form(text).unwrap_err())
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        it is empty
        it is empty
        its first line is "hello", which cloud-init does not know
        its first line is "users: []", which cloud-init does not know
        it has a part of type text/cloudconfig, which cloud-init does not know
        its Content-Type is multipart without a boundary
        it has no part: there is no line --==a==, its boundary
        "#);
        // With a part-handler, types that cloud-init does not know are accepted.
        let handled = NESTED
            .replace("text/cloud-config", "text/mine")
            .replace("text/x-shellscript", "text/part-handler");
        assert_eq!(form(&handled), Ok(Form::Mime));
        assert!(recognise(b"#cloud-config\n\xff\n".to_vec()).is_err());
    }
}
