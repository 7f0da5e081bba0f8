//! The keys and words of stead's JSON, read from its code, against the reference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, Expr, ExprAssign, Field, Fields, ItemEnum, ItemStruct, Lit, Macro, Meta, Token,
    ext::IdentExt,
    punctuated::Punctuated,
    visit::{self, Visit},
};

use super::{
    pages::{Page, files_below, has_extension, repository},
    program::commands,
};

/// Types that commands print but that are not in their files: the file, the types, and the heading of the section
/// that describes them.
const ELSEWHERE: [(&str, &[&str], &str); 13] = [
    (
        "src/report/event.rs",
        &["Event", "EventKind", "Outcome"],
        "Events",
    ),
    ("src/session/run.rs", &["KernelRun", "RunResult"], "run"),
    ("src/resources/usage.rs", &["Rates"], "top"),
    ("src/plan/drift.rs", &["Change", "Drift"], "plan"),
    ("src/plan/provisioners.rs", &["Stale"], "plan"),
    ("src/plan/step.rs", &["ProvisionReason"], "plan"),
    ("src/machine/pause.rs", &["DiskError", "Pause"], "status"),
    (
        "src/sync/watch/state.rs",
        &["Last", "MachineState"],
        "status",
    ),
    ("src/machinefile/model.rs", &["Project"], "validate"),
    ("src/boxes/seed.rs", &["SeedKind"], "box"),
    ("src/kernel/config.rs", &["Presence"], "kernel"),
    (
        "src/kernel/carry/setting.rs",
        &["CarriedSetting", "Decision", "Subject"],
        "kernel",
    ),
    (
        "src/kernel/compare.rs",
        &["Difference", "Verdict"],
        "kernel",
    ),
];

/// What a file can print.
#[derive(Default)]
struct Found {
    /// By the type that has them.
    types: BTreeMap<String, BTreeSet<String>>,
    /// Of `json!` and of values that are added to one.
    keys: BTreeSet<String>,
    /// Whether it prints a document.
    prints: bool,
}

fn is_serialized(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("derive") => {
            (list.tokens.clone().into_iter()).any(|token| token.to_string() == "Serialize")
        }
        _ => false,
    })
}

/// The text of `#[serde(…)]`.
fn serde(attributes: &[Attribute]) -> String {
    (attributes.iter())
        .filter_map(|attribute| match &attribute.meta {
            Meta::List(list) if list.path.is_ident("serde") => Some(list.tokens.to_string()),
            _ => None,
        })
        .collect()
}

/// The value of `name = "…"` in the text of `#[serde(…)]`.
fn value<'a>(serde: &'a str, name: &str) -> Option<&'a str> {
    let rest = serde.split(&format!("{name} = \"")).nth(1)?;
    rest.split('"').next()
}

/// A variant's name in JSON.
fn word(variant: &str, rename_all: &str) -> String {
    let mut word = String::new();
    for c in variant.chars() {
        if c.is_ascii_uppercase() && !word.is_empty() && rename_all == "kebab-case" {
            word.push('-');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}

fn fields(fields: &Fields) -> BTreeSet<String> {
    let is_key = |field: &&Field| {
        let serde = serde(&field.attrs);
        !(serde.split(',').map(str::trim)).any(|it| it == "skip" || it == "flatten")
    };
    (fields.iter().filter(is_key))
        .filter_map(|field| Some(field.ident.as_ref()?.unraw().to_string()))
        .collect()
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_struct(&mut self, it: &'ast ItemStruct) {
        if is_serialized(&it.attrs) {
            self.types.insert(it.ident.to_string(), fields(&it.fields));
        }
    }

    fn visit_item_enum(&mut self, it: &'ast ItemEnum) {
        if !is_serialized(&it.attrs) {
            return;
        }
        let serde = serde(&it.attrs);
        let Some(rename_all) = value(&serde, "rename_all") else {
            return;
        };
        let mut found: BTreeSet<String> = (value(&serde, "tag").into_iter())
            .map(str::to_string)
            .collect();
        for variant in &it.variants {
            found.insert(word(&variant.ident.to_string(), rename_all));
            found.extend(fields(&variant.fields));
        }
        self.types.insert(it.ident.to_string(), found);
    }

    fn visit_expr_assign(&mut self, it: &'ast ExprAssign) {
        if let Expr::Index(index) = it.left.as_ref()
            && let Expr::Lit(key) = index.index.as_ref()
            && let Lit::Str(key) = &key.lit
        {
            self.keys.insert(key.value());
        }
        visit::visit_expr_assign(self, it);
    }

    fn visit_path(&mut self, it: &'ast syn::Path) {
        let words: Vec<String> = it.segments.iter().map(|it| it.ident.to_string()).collect();
        if words == ["output", "json"] || words == ["output", "json_line"] {
            self.prints = true;
        }
        visit::visit_path(self, it);
    }

    fn visit_macro(&mut self, it: &'ast Macro) {
        if it
            .path
            .segments
            .last()
            .is_some_and(|name| name.ident == "json")
        {
            self.keys.extend(keys_of(&it.tokens.to_string()));
        } else if let Ok(inside) =
            it.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated)
        {
            for expression in &inside {
                self.visit_expr(expression);
            }
        }
    }
}

/// Returns the keys of a `json!`, and of those within it: text before a single colon.
fn keys_of(tokens: &str) -> BTreeSet<String> {
    let parts: Vec<&str> = tokens.split('"').collect();
    (parts.windows(2).skip(1).step_by(2))
        .filter(|pair| {
            pair[1].trim_start().starts_with(':') && !pair[1].trim_start().starts_with("::")
        })
        .map(|pair| pair[0].to_string())
        .collect()
}

fn found(path: &Path) -> Found {
    let text = fs::read_to_string(repository().join(path)).unwrap();
    let mut found = Found::default();
    found.visit_file(&syn::parse_file(&text).unwrap());
    found
}

/// The text below a heading, up to the next heading that is not below it.
fn section(page: &Page, heading: &str) -> Option<String> {
    let level = |line: &str| line.chars().take_while(|c| *c == '#').count();
    let mut lines = page.text.lines();
    let start =
        lines.find(|line| line.trim_start_matches('#').trim() == heading && level(line) > 1)?;
    let text = lines.take_while(|line| level(line) == 0 || level(line) > level(start));
    Some(text.collect::<Vec<_>>().join("\n"))
}

/// The heading for a file of `cli`: the command, or what several of them work on.
fn heading(path: &Path) -> String {
    let below = path.strip_prefix("src/cli").unwrap();
    let first = below.iter().next().unwrap().to_string_lossy().into_owned();
    match first.as_str() {
        "boxes" => "box".into(),
        other => other.trim_end_matches(".rs").replace('_', "-"),
    }
}

#[test]
fn every_key_is_in_the_reference() {
    let page = Page::read(Path::new("docs/reference/json.md"));
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files_below(Path::new("src/cli")) {
        if !has_extension(&path, "rs") {
            continue;
        }
        let found = found(&path);
        let mut keys = found.keys;
        keys.extend(found.types.into_values().flatten());
        if found.prints || !keys.is_empty() {
            wanted.entry(heading(&path)).or_default().extend(keys);
        }
    }
    for (path, types, heading) in ELSEWHERE {
        let mut found = found(Path::new(path));
        for name in types {
            let keys =
                (found.types.remove(*name)).unwrap_or_else(|| panic!("{path} has no {name}"));
            wanted.entry(heading.into()).or_default().extend(keys);
        }
    }
    let without: Vec<&String> = (wanted.iter())
        .filter(|(_, keys)| keys.is_empty())
        .map(|(heading, _)| heading)
        .collect();
    // Ansible defines what an inventory looks like.
    assert_eq!(without, ["inventory"]);
    let all: usize = wanted.values().map(BTreeSet::len).sum();
    assert!(all > 150, "only {all} keys were found in the code");
    let mut missing = BTreeSet::new();
    for (heading, keys) in wanted {
        match section(&page, &heading) {
            None => {
                missing.insert(format!("the section {heading}"));
            }
            Some(text) => missing.extend(
                (keys.into_iter())
                    .filter(|key| !text.contains(&format!("`{key}`")))
                    .map(|key| format!("{heading}: {key}")),
            ),
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_reference_says_what_every_command_prints() {
    let page = Page::read(Path::new("docs/reference/json.md"));
    let table = section(&page, "Which command prints what").unwrap();
    let missing: Vec<String> = (commands().into_iter())
        .map(|name| name.trim_start_matches("stead ").to_string())
        .filter(|name| !table.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The texts in the functions called `id`. A format string counts up to its first value.
#[derive(Default)]
struct Ids {
    inside: bool,
    found: Vec<String>,
}

impl<'ast> Visit<'ast> for Ids {
    fn visit_impl_item_fn(&mut self, it: &'ast syn::ImplItemFn) {
        self.inside = it.sig.ident == "id";
        self.visit_block(&it.block);
        self.inside = false;
    }

    fn visit_lit_str(&mut self, it: &'ast syn::LitStr) {
        if self.inside {
            self.found.push(it.value());
        }
    }

    fn visit_macro(&mut self, it: &'ast Macro) {
        let arguments = it.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated);
        if self.inside
            && let Ok(Some(Expr::Lit(format))) = arguments.as_ref().map(Punctuated::first)
            && let Lit::Str(format) = &format.lit
        {
            let format = format.value();
            let start = format.split('{').next().unwrap_or_default();
            self.found.push(start.to_string());
        }
    }
}

fn ids(path: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(path)).unwrap();
    let mut ids = Ids::default();
    ids.visit_file(&syn::parse_file(&text).unwrap());
    ids.found.retain(|id| !id.is_empty());
    ids.found
}

#[test]
fn the_reference_has_every_step() {
    let page = Page::read(Path::new("docs/reference/json.md"));
    let table = section(&page, "Steps").unwrap();
    let steps = ids("src/plan/step.rs");
    assert!(steps.len() > 20, "{steps:?}");
    let moments = ids("src/machinefile/model.rs");
    assert_eq!(moments.len(), 6, "{moments:?}");
    let missing: Vec<String> = (steps.into_iter())
        .map(|id| match id.ends_with(':') {
            true => format!("`{id}"),
            false => format!("`{id}`"),
        })
        .chain(moments.into_iter().map(|moment| format!("`{moment}:")))
        .filter(|words| !table.contains(words))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
