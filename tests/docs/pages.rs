//! The pages that people read, and their parts.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Markdown file.
pub(crate) struct Page {
    /// From the repository's folder.
    pub path: PathBuf,
    pub text: String,
}

/// A fenced block of a page.
pub(crate) struct Fence {
    /// What stands behind the opening backticks: `kdl machine`.
    pub info: String,
    pub text: String,
    /// The line of its first line of text, from 1.
    pub line: usize,
}

impl Page {
    pub(crate) fn read(path: &Path) -> Page {
        Page {
            path: path.to_path_buf(),
            text: fs::read_to_string(repository().join(path)).unwrap(),
        }
    }

    /// README.md, every page of docs/, and what lies beside the code.
    pub(crate) fn all() -> Vec<Page> {
        let mut paths: Vec<PathBuf> = fs::read_dir(repository())
            .unwrap()
            .map(|entry| PathBuf::from(entry.unwrap().file_name()))
            .collect();
        for folder in ["docs", "examples", "provisioners"] {
            paths.extend(files_below(Path::new(folder)));
        }
        paths.retain(|path| has_extension(path, "md"));
        paths.sort();
        paths.iter().map(|path| Page::read(path)).collect()
    }

    /// Those that people read to use stead: README.md and docs/.
    pub(crate) fn documentation() -> Vec<Page> {
        let mut pages = Page::all();
        pages.retain(|page| page.path.starts_with("docs") || page.path == Path::new("README.md"));
        pages
    }

    pub(crate) fn fences(&self) -> Vec<Fence> {
        let mut fences = Vec::new();
        let mut open: Option<Fence> = None;
        for (n, line) in self.text.lines().enumerate() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(info)) => {
                    open = Some(Fence {
                        info: info.trim().to_string(),
                        text: String::new(),
                        line: n + 2,
                    });
                }
                (Some(_), Some(_)) => fences.extend(open.take()),
                (Some(fence), None) => {
                    fence.text.push_str(line);
                    fence.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(
            open.is_none(),
            "{}: a fence has no end",
            self.path.display()
        );
        fences
    }

    /// Lines with their numbers, from 1, without those of fences.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut within = false;
        let mut lines = Vec::new();
        for (n, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                within = !within;
            } else if !within {
                lines.push((n + 1, line));
            }
        }
        lines
    }

    /// The same, lines that follow one another as one, with the number of the first.
    pub(crate) fn paragraphs(&self) -> Vec<(usize, String)> {
        let mut paragraphs: Vec<(usize, String)> = Vec::new();
        let mut last = 0;
        for (n, line) in self.prose() {
            if line.trim().is_empty() {
                continue;
            }
            match paragraphs.last_mut() {
                Some((_, text)) if last + 1 == n => {
                    text.push(' ');
                    text.push_str(line.trim());
                }
                _ => paragraphs.push((n, line.trim().to_string())),
            }
            last = n;
        }
        paragraphs
    }
}

/// The text between backticks, and the paragraph without it.
pub(crate) fn code_spans(paragraph: &str) -> (Vec<&str>, String) {
    let mut spans = Vec::new();
    let mut rest = String::new();
    for (n, part) in paragraph.split('`').enumerate() {
        if n % 2 == 0 {
            rest.push_str(part);
        } else {
            spans.push(part);
        }
    }
    (spans, rest)
}

/// Every file below a folder of the repository, by its path from the repository's folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(repository().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

pub(crate) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}
