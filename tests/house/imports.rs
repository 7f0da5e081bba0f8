//! Who imports whom in src/, read from the code itself. Tests count for nothing.
//!
//! A mod.rs is a file as any other. `mod x;` and `pub use x::Y` are not imports, because they only say what there is:
//! who takes `Y` from the mod.rs imports x. But code of a mod.rs that uses its children imports them. So a mod.rs
//! whose code needs its children has nothing that they need in turn, except within a pair.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Item, ItemMod, ItemUse, Meta, UseTree,
    visit::{self, Visit},
};

/// A file of src/.
pub(crate) struct File {
    /// Below src/.
    pub path: PathBuf,
    /// `hypervisor::record` is `["hypervisor", "record"]`.
    module: Vec<String>,
    /// Paths from the crate's root that its code names.
    names: BTreeSet<Vec<String>>,
    /// Names that it hands on by `pub use`, and what they are.
    exports: BTreeMap<String, Vec<String>>,
    /// Without tests in it.
    pub lines: usize,
}

impl File {
    /// The folder or file right below src/ that it is in.
    pub(crate) fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

pub(crate) struct Tree {
    pub files: Vec<File>,
}

impl Tree {
    pub(crate) fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut paths = Vec::new();
        collect(&src, &mut paths);
        paths.sort();
        let files = paths.iter().filter_map(|path| read(&src, path)).collect();
        Tree { files }
    }

    /// For every file, the others that its code needs.
    pub(crate) fn imports(&self) -> Vec<BTreeSet<usize>> {
        let by_module: BTreeMap<&[String], usize> = (self.files.iter().enumerate())
            .map(|(n, file)| (file.module.as_slice(), n))
            .collect();
        let resolved = |n: usize, file: &File| {
            let named = file.names.iter();
            named
                .filter_map(|path| self.resolve(&by_module, path, 0))
                .filter(|&other| other != n)
                .collect()
        };
        (self.files.iter().enumerate())
            .map(|(n, file)| resolved(n, file))
            .collect()
    }

    /// The file where that stands.
    fn resolve(
        &self,
        by_module: &BTreeMap<&[String], usize>,
        path: &[String],
        depth: usize,
    ) -> Option<usize> {
        assert!(depth < 20, "re-exports in a circle: {path:?}");
        let mut at = *by_module.get(&path[..0])?;
        for (n, name) in path.iter().enumerate() {
            if let Some(&child) = by_module.get(&path[..=n]) {
                at = child;
                continue;
            }
            if let Some(export) = self.files[at].exports.get(name) {
                let whole: Vec<String> = export.iter().chain(&path[n + 1..]).cloned().collect();
                return self.resolve(by_module, &whole, depth + 1);
            }
            break;
        }
        Some(at)
    }

    /// Rooms that each room imports.
    pub(crate) fn rooms(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut rooms: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (file, imports) in self.files.iter().zip(self.imports()) {
            let from = rooms.entry(file.room()).or_default();
            from.extend(
                (imports.iter())
                    .map(|&n| self.files[n].room())
                    .filter(|room| *room != file.room()),
            );
        }
        rooms
    }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|end| end == "rs") {
            paths.push(path);
        }
    }
}

/// None for what is only for tests, and for programs.
fn read(src: &Path, path: &Path) -> Option<File> {
    let below = path.strip_prefix(src).unwrap().to_path_buf();
    let stem = below.file_stem()?.to_str()?;
    if stem == "tests"
        || stem == "fuzz"
        || below == Path::new("main.rs")
        || below.starts_with("bin")
    {
        return None;
    }
    let mut module: Vec<String> = (below.parent()?.iter())
        .map(|part| part.to_str().unwrap().to_string())
        .collect();
    if stem != "mod" && stem != "lib" {
        module.push(stem.to_string());
    }
    let text = fs::read_to_string(path).unwrap();
    let parsed =
        syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if parsed.attrs.iter().any(is_for_tests) {
        return None;
    }
    let children = (parsed.items.iter())
        .filter_map(|item| match item {
            Item::Mod(it) if it.content.is_none() && !it.attrs.iter().any(is_for_tests) => {
                Some([module.as_slice(), &[it.ident.to_string()]].concat())
            }
            _ => None,
        })
        .collect();
    let mut reader = Reader {
        module: module.clone(),
        children,
        names: BTreeSet::new(),
        exports: BTreeMap::new(),
    };
    reader.visit_file(&parsed);
    // Tests are at the end of a file.
    let lines = (text.lines())
        .position(|line| line.trim() == "#[cfg(test)]")
        .unwrap_or_else(|| text.lines().count());
    Some(File {
        path: below,
        module,
        names: reader.names,
        exports: reader.exports,
        lines,
    })
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && match &attribute.meta {
            Meta::List(list) => ["test", "fuzzing"].contains(&list.tokens.to_string().as_str()),
            _ => false,
        }
}

struct Reader {
    module: Vec<String>,
    /// Files below this one, by their modules: `use x::Y` with `mod x;` beside it is `self::x::Y`.
    children: BTreeSet<Vec<String>>,
    names: BTreeSet<Vec<String>>,
    exports: BTreeMap<String, Vec<String>>,
}

impl Reader {
    /// From the crate's root; None for what is of another crate or a name of this file.
    fn absolute(&self, segments: &[String]) -> Option<Vec<String>> {
        let (first, rest) = segments.split_first()?;
        let mut path = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => {
                let mut above = self.module.clone();
                above.pop();
                above
            }
            child => {
                let child = [self.module.as_slice(), &[child.to_string()]].concat();
                if !self.children.contains(&child) {
                    return None;
                }
                child
            }
        };
        for name in rest {
            if name == "super" {
                path.pop();
            } else {
                path.push(name.clone());
            }
        }
        Some(path)
    }

    fn take(&mut self, segments: &[String]) {
        self.names.extend(self.absolute(segments));
    }

    fn flatten(tree: &UseTree, before: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                Self::flatten(&path.tree, before, found);
                before.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                found.push((before.clone(), before.last().cloned().unwrap_or_default()));
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                found.push((
                    [before.as_slice(), std::slice::from_ref(&name)].concat(),
                    name,
                ));
            }
            UseTree::Rename(rename) => {
                let path = [before.as_slice(), &[rename.ident.to_string()]].concat();
                found.push((path, rename.rename.to_string()));
            }
            UseTree::Glob(_) => found.push((before.clone(), "*".into())),
            UseTree::Group(group) => {
                for tree in &group.items {
                    Self::flatten(tree, before, found);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            Item::Fn(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            Item::Struct(it) => &it.attrs,
            Item::Const(it) => &it.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut found = Vec::new();
        Self::flatten(&item.tree, &mut Vec::new(), &mut found);
        let is_export = !matches!(item.vis, syn::Visibility::Inherited);
        for (mut path, name) in found {
            if is_export {
                // `pub use record::Record` in a mod.rs: a module of its own, not another crate.
                if !["crate", "self", "super"].contains(&path[0].as_str()) {
                    path.insert(0, "self".into());
                }
                self.exports
                    .extend(self.absolute(&path).map(|path| (name, path)));
            } else {
                self.take(&path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = (path.segments.iter())
            .map(|segment| segment.ident.to_string())
            .collect();
        if segments.len() > 1 {
            self.take(&segments);
        }
        visit::visit_path(self, path);
    }

    /// What is in a macro is not parsed: paths from the crate's root are looked for in its words.
    fn visit_macro(&mut self, it: &'ast syn::Macro) {
        let words = it.tokens.to_string();
        for at in words.split("crate :: ").skip(1) {
            let path: Vec<String> = at
                .split(" :: ")
                .map_while(|part| {
                    let name: String = (part.chars())
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect();
                    (!name.is_empty()).then_some(name)
                })
                .collect();
            self.take(&[&["crate".to_string()][..], &path].concat());
        }
        visit::visit_macro(self, it);
    }
}

/// Groups of more than one that all lead to each other, largest first.
pub(crate) fn circles(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reach: Vec<BTreeSet<usize>> = (0..edges.len()).map(|n| reachable(edges, n)).collect();
    let mut circles: Vec<Vec<usize>> = Vec::new();
    for n in 0..edges.len() {
        let circle: Vec<usize> = (0..edges.len())
            .filter(|&other| reach[n].contains(&other) && reach[other].contains(&n))
            .collect();
        if circle.len() > 1 && circle[0] == n {
            circles.push(circle);
        }
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

fn reachable(edges: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(n) = open.pop() {
        for &next in &edges[n] {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}
