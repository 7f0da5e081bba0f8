//! Reads one KDL node: arguments, properties, children. Unknown ones are errors.

mod meant;
mod text;
pub(super) mod values;

use std::sync::Arc;

use kdl::{KdlEntry, KdlNode, KdlValue};

use self::values::kind;
use super::{
    diagnostics::{Errors, MachinefileError, Span, Spanned},
    syntax::FileInfo,
    variables::Variables,
};
use crate::host::names::{is_user, nearest, one_of};

pub(super) struct Node<'a> {
    kdl: &'a KdlNode,
    file: &'a Arc<FileInfo>,
    env: &'a Variables<'a>,
    pub errors: &'a mut Errors,
}

impl<'a> Node<'a> {
    pub(super) fn new(
        node: &'a KdlNode,
        file: &'a Arc<FileInfo>,
        env: &'a Variables<'a>,
        errors: &'a mut Errors,
    ) -> Self {
        Node {
            kdl: node,
            file,
            env,
            errors,
        }
    }

    pub(super) fn name(&self) -> &'a str {
        self.kdl.name().value()
    }

    pub(super) fn file(&self) -> &'a Arc<FileInfo> {
        self.file
    }

    fn span(&self, range: miette::SourceSpan) -> Span {
        Span {
            source: Arc::clone(&self.file.source),
            range,
        }
    }

    /// The node's name.
    pub(super) fn here(&self) -> Span {
        self.span(self.kdl.name().span())
    }

    pub(super) fn error(&mut self, error: MachinefileError) {
        self.errors.push(error);
    }

    /// Reports what is valid and would surprise.
    pub(super) fn warn(&mut self, place: &Span, message: String) {
        self.errors.warn(place, &message);
    }

    fn entry_span(&self, entry: &KdlEntry) -> Span {
        let span = entry.span();
        // A property's span starts at its name, but the mistake is in its value.
        if entry.name().is_some() {
            let text = self
                .file
                .source
                .text
                .get(span.offset()..span.offset() + span.len());
            if let Some(at) = text.and_then(|text| text.find('=')) {
                return self.span((span.offset() + at + 1, span.len() - at - 1).into());
            }
        }
        self.span(span)
    }

    fn arguments(&self) -> impl Iterator<Item = &'a KdlEntry> + use<'a> {
        self.kdl
            .entries()
            .iter()
            .filter(|entry| entry.name().is_none())
    }

    /// Reports all arguments after the first `count`.
    pub(super) fn at_most(&mut self, count: usize) {
        let name = self.name();
        let surplus: Vec<&KdlEntry> = self.arguments().skip(count).collect();
        for entry in surplus {
            let place = self.entry_span(entry);
            self.errors.push(MachinefileError::new(
                &place,
                format!(
                    "`{name}` takes {}",
                    match count {
                        0 => "no argument".to_string(),
                        1 => "one argument".to_string(),
                        n => format!("{n} arguments"),
                    }
                ),
                "too many",
            ));
        }
    }

    fn missing(&mut self, what: &str) {
        let name = self.name();
        let place = self.here();
        self.errors.push(MachinefileError::new(
            &place,
            format!("`{name}` needs {what}"),
            "nothing after it",
        ));
    }

    /// Returns the only argument, as text.
    pub(super) fn one_string(&mut self, what: &str) -> Option<Spanned<String>> {
        self.at_most(1);
        self.first_string(what)
    }

    /// Returns the first argument, as text.
    pub(super) fn first_string(&mut self, what: &str) -> Option<Spanned<String>> {
        match self.arguments().next() {
            None => {
                self.missing(what);
                None
            }
            Some(entry) => self.string(entry, what),
        }
    }

    /// Returns the first argument as it is written, with `${env.NAME}` in place of its value.
    pub(super) fn first_as_written(&self) -> Option<String> {
        match self.arguments().next()?.value() {
            KdlValue::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Returns the first argument, if it is a whole number.
    pub(super) fn first_number(&self) -> Option<i128> {
        self.arguments().next()?.value().as_integer()
    }

    /// Returns a property as it is written, if it is text.
    pub(super) fn property_as_written(&self, name: &str) -> Option<String> {
        match self.property(name)?.value() {
            KdlValue::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn is_without_arguments(&self) -> bool {
        self.arguments().next().is_none()
    }

    /// Returns the first argument, as text, if there is one.
    pub(super) fn optional_first_string(&mut self, what: &str) -> Option<Spanned<String>> {
        let entry = self.arguments().next()?;
        self.string(entry, what)
    }

    /// Returns the argument at `index` as a whole number within bounds.
    pub(super) fn number(
        &mut self,
        index: usize,
        what: &str,
        low: i128,
        high: i128,
    ) -> Option<Spanned<i128>> {
        match self.arguments().nth(index) {
            None => {
                self.missing(&format!("a {what}"));
                None
            }
            Some(entry) => self.bounded(entry, what, low, high),
        }
    }

    /// Returns all arguments as whole numbers within bounds.
    pub(super) fn numbers(&mut self, what: &str, low: i128, high: i128) -> Vec<Spanned<i128>> {
        let entries: Vec<&KdlEntry> = self.arguments().collect();
        if entries.is_empty() {
            self.missing(&format!("a {what}"));
        }
        entries
            .into_iter()
            .filter_map(|entry| self.bounded(entry, what, low, high))
            .collect()
    }

    fn bounded(
        &mut self,
        entry: &KdlEntry,
        what: &str,
        low: i128,
        high: i128,
    ) -> Option<Spanned<i128>> {
        let place = self.entry_span(entry);
        match entry.value() {
            KdlValue::Integer(number) if (low..=high).contains(number) => {
                Some(Spanned::new(*number, place))
            }
            KdlValue::Integer(number) => {
                self.errors.push(MachinefileError::new(
                    &place,
                    format!("{number} is not a valid {what}"),
                    format!("expected {low} to {high}"),
                ));
                None
            }
            other => {
                let error = MachinefileError::new(
                    &place,
                    format!("`{}` takes a number, not {}", self.name(), kind(other)),
                    format!("expected a {what}"),
                );
                self.errors.push(match values::number_meant(what, other) {
                    Some(help) => error.help(help),
                    None => error,
                });
                None
            }
        }
    }

    /// Returns a size or a duration, which is text with a unit. `parse` returns the value, or a label for the
    /// mistake.
    pub(super) fn with_unit<T>(
        &mut self,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        self.at_most(1);
        let Some(entry) = self.arguments().next() else {
            self.missing(&format!("a value such as \"{example}\""));
            return None;
        };
        self.value_with_unit(entry, self.name(), example, parse)
    }

    /// The same, for a property.
    pub(super) fn property_with_unit<T>(
        &mut self,
        name: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        let entry = self.property(name)?;
        self.value_with_unit(entry, name, example, parse)
    }

    fn value_with_unit<T>(
        &mut self,
        entry: &KdlEntry,
        name: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        let place = self.entry_span(entry);
        let bare = match entry.value() {
            KdlValue::Integer(number) => Some(*number),
            KdlValue::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if let Some(number) = bare {
            let meant = values::with_likely_unit(number, example);
            self.errors.push(
                MachinefileError::new(&place, format!("`{name}` needs a unit"), "a bare number")
                    .help(format!("did you mean \"{meant}\"?")),
            );
            return None;
        }
        let text = self.string(entry, &format!("text such as \"{example}\""))?;
        match parse(&text.value) {
            Ok(value) => Some(Spanned::new(value, place)),
            Err(message) => {
                self.errors.push(
                    MachinefileError::new(
                        &place,
                        format!("{:?} is not a value for `{name}`", text.value),
                        message,
                    )
                    .help(format!("write a value such as \"{example}\"")),
                );
                None
            }
        }
    }

    fn property(&self, name: &str) -> Option<&'a KdlEntry> {
        self.kdl
            .entries()
            .iter()
            .find(|entry| entry.name().is_some_and(|known| known.value() == name))
    }

    pub(super) fn has_property(&self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// Returns the value of a property that names a user of the guest.
    pub(super) fn property_user(&mut self, name: &str) -> Option<Spanned<String>> {
        let user = self.property_string(name)?;
        self.check_user(&user);
        Some(user)
    }

    /// Reports a name that is not valid for a user.
    pub(super) fn check_user(&mut self, user: &Spanned<String>) {
        if !is_user(&user.value) {
            self.error(
                MachinefileError::new(
                    &user.span,
                    format!("{:?} is not a valid user name", user.value),
                    "not a user name",
                )
                .help(
                    "use up to 32 lower-case ASCII letters, digits, `-` and `_`, starting with a letter",
                ),
            );
        }
    }

    /// Returns the argument of a node that is #true or #false.
    pub(super) fn one_bool(&mut self) -> Option<Spanned<bool>> {
        self.at_most(1);
        let Some(entry) = self.arguments().next() else {
            self.missing("#true or #false");
            return None;
        };
        let place = self.entry_span(entry);
        match entry.value() {
            KdlValue::Bool(value) => Some(Spanned::new(*value, place)),
            other => {
                let name = self.name();
                let message = format!("`{name}` takes #true or #false");
                let written = |value: &str| format!("`{name} {value}`");
                self.error(values::not_a_bool(&place, message, other, written));
                None
            }
        }
    }

    pub(super) fn property_bool(&mut self, name: &str) -> Option<Spanned<bool>> {
        let entry = self.property(name)?;
        let place = self.entry_span(entry);
        match entry.value() {
            KdlValue::Bool(value) => Some(Spanned::new(*value, place)),
            other => {
                let message = format!("`{name}` is #true or #false");
                let written = |value: &str| format!("{name}={value}");
                self.error(values::not_a_bool(&place, message, other, written));
                None
            }
        }
    }

    pub(super) fn property_number(
        &mut self,
        name: &str,
        what: &str,
        low: i128,
        high: i128,
    ) -> Option<Spanned<i128>> {
        let entry = self.property(name)?;
        self.bounded(entry, what, low, high)
    }

    fn named_entries(&self) -> Vec<(Spanned<String>, &'a KdlEntry)> {
        (self.kdl.entries().iter())
            .filter_map(|entry| {
                let name = entry.name()?;
                let key = Spanned::new(name.value().to_string(), self.span(name.span()));
                Some((key, entry))
            })
            .collect()
    }

    /// Reports all properties that are not one of these.
    pub(super) fn properties(&mut self, known: &[&str]) {
        let node = self.name();
        let unknown: Vec<&KdlEntry> = self
            .kdl
            .entries()
            .iter()
            .filter(|entry| {
                entry
                    .name()
                    .is_some_and(|name| !known.contains(&name.value()))
            })
            .collect();
        for entry in unknown {
            let Some(name) = entry.name() else { continue };
            let place = self.span(name.span());
            let error = MachinefileError::new(
                &place,
                format!("`{node}` has no property `{}`", name.value()),
                nearest(name.value(), known.iter().copied())
                    .map_or("unknown".into(), |near| format!("did you mean `{near}`?")),
            );
            self.errors.push(if known.is_empty() {
                error.help(format!("`{node}` takes no properties"))
            } else {
                error.help(format!("the properties of `{node}` are {}", one_of(known)))
            });
        }
    }

    /// Reports properties that other tools have, each with what to write instead. Returns whether there were any.
    pub(super) fn properties_of_others(&mut self, known: &[(&[&str], &str)]) -> bool {
        self.foreign_properties(&|name, _| {
            let other = known.iter().find(|(names, _)| names.contains(&name));
            other.map(|(_, help)| help.to_string())
        })
    }

    pub(super) fn no_children(&mut self) {
        self.properties_of_children(&[]);
    }

    fn properties_of_children(&mut self, known: &[&str]) {
        for child in self.children() {
            self.unknown_child(child, known);
        }
    }

    pub(super) fn unknown_child(&mut self, child: &KdlNode, known: &[&str]) {
        if self.errors.is_full() {
            self.errors.count();
            return;
        }
        let place = self.span(child.name().span());
        let name = child.name().value();
        self.errors.push(unknown_node(
            &place,
            &format!("`{}`", self.name()),
            name,
            known,
        ));
    }

    pub(super) fn children(&self) -> &'a [KdlNode] {
        self.kdl.children().map_or(&[], |children| children.nodes())
    }

    /// Returns a child to read.
    pub(super) fn child<'b>(&'b mut self, node: &'b KdlNode) -> Node<'b>
    where
        'a: 'b,
    {
        Node {
            kdl: node,
            file: self.file,
            env: self.env,
            errors: self.errors,
        }
    }
}

/// Names from other tools, and their names in a Machinefile.
const OTHER_TOOLS: [(&str, &str); 39] = [
    ("address", "network"),
    ("alias", "network"),
    ("aliases", "network"),
    ("allow", "egress"),
    ("base", "box"),
    ("bridge", "network"),
    ("config", "machine"),
    ("cores", "cpus"),
    ("domain", "machine"),
    ("environment", "env"),
    ("expose", "forward"),
    ("firewall", "egress"),
    ("files", "sync"),
    ("forwarded-port", "forward"),
    ("forwarded_port", "forward"),
    ("image", "box"),
    ("instance", "machine"),
    ("ip", "network"),
    ("mem", "memory"),
    ("mount", "sync"),
    ("mounts", "sync"),
    ("networks", "network"),
    ("node", "machine"),
    ("port", "forward"),
    ("portForwards", "forward"),
    ("ports", "forward"),
    ("private-network", "network"),
    ("private_network", "network"),
    ("public-network", "network"),
    ("public_network", "network"),
    ("ram", "memory"),
    ("script", "shell"),
    ("service", "machine"),
    ("subnet", "network"),
    ("synced-folder", "sync"),
    ("synced_folder", "sync"),
    ("vcpus", "cpus"),
    ("vm", "machine"),
    ("volumes", "sync"),
];

/// Nodes of a machine that other tools write otherwise, as a Machinefile has them.
const EXAMPLES: [(&str, &str); 4] = [
    ("egress", "egress { allow \"deb.debian.org\"; }"),
    ("forward", "forward 8080 to=80"),
    (
        "network",
        "network \"backend\" address=\"10.77.0.10\" aliases=\"postgres pg\"",
    ),
    ("sync", "sync \".\" to=\"/srv/app\""),
];

/// Returns the error for a node that does not belong where it is.
pub(super) fn unknown_node(
    span: &Span,
    inside: &str,
    name: &str,
    known: &[&str],
) -> MachinefileError {
    let foreign = OTHER_TOOLS.iter().find(|(other, _)| *other == name);
    let meant = foreign
        .map(|(_, own)| *own)
        .filter(|own| known.contains(own));
    let error = MachinefileError::new(
        span,
        format!("{inside} has no `{name}`"),
        meant
            .or_else(|| nearest(name, known.iter().copied()))
            .map_or("unknown".into(), |near| format!("did you mean `{near}`?")),
    );
    let is_of_machine = known.contains(&"box");
    let example = (EXAMPLES.iter()).find(|(own, _)| is_of_machine && meant == Some(own));
    if known.is_empty() {
        error.help(format!("{inside} takes nothing in braces"))
    } else if let Some((_, example)) = example {
        error.help(format!("write `{example}`"))
    } else {
        error.help(format!("{inside} may have {}", one_of(known)))
    }
}
