//! What people meant who wrote a node as other tools have it: values in another place.

use kdl::{KdlEntry, KdlNode, KdlValue};

use super::{
    Node,
    values::{arguments, as_kdl},
};
use crate::machinefile::diagnostics::{MachinefileError, Spanned};

impl Node<'_> {
    /// Returns all arguments as a Machinefile has them, with `${env.NAME}` in place of its value.
    pub(in crate::machinefile) fn written(&self) -> Vec<String> {
        self.arguments()
            .map(|entry| as_kdl(entry.value()))
            .collect()
    }

    /// Returns the first argument, if it is #true or #false.
    pub(in crate::machinefile) fn first_bool(&self) -> Option<bool> {
        self.arguments().next()?.value().as_bool()
    }

    /// Returns a property's value as a Machinefile has it.
    pub(in crate::machinefile) fn property_written(&self, name: &str) -> Option<String> {
        self.property(name).map(|entry| as_kdl(entry.value()))
    }

    /// Returns the node without what is in its braces, to show in a hint.
    fn line(&self) -> String {
        let mut words = vec![self.name().to_string()];
        words.extend(self.written());
        for (name, entry) in self.named_entries() {
            words.push(format!("{}={}", name.value, as_kdl(entry.value())));
        }
        words.join(" ")
    }

    /// As [`Self::at_most`], with what to write instead where that can be guessed from all arguments.
    pub(in crate::machinefile) fn at_most_or(
        &mut self,
        count: usize,
        meant: impl FnOnce(&[String]) -> Option<String>,
    ) {
        let written = self.written();
        let Some(entry) = self.arguments().nth(count) else {
            return;
        };
        let Some(help) = meant(&written) else {
            return self.at_most(count);
        };
        let place = self.entry_span(entry);
        let takes = match count {
            0 => "no argument".to_string(),
            1 => "one argument".to_string(),
            count => format!("{count} arguments"),
        };
        let message = format!("`{}` takes {takes}", self.name());
        self.error(MachinefileError::new(&place, message, "too many").help(help));
    }

    /// Reports properties that other tools have, each with what to write instead. `meant` gets a property's name, and its
    /// value as a Machinefile has it. Returns whether there were any.
    pub(in crate::machinefile) fn foreign_properties(
        &mut self,
        meant: &dyn Fn(&str, &str) -> Option<String>,
    ) -> bool {
        let node = self.name();
        let mut found = false;
        for (name, entry) in self.named_entries() {
            if let Some(help) = meant(&name.value, &as_kdl(entry.value())) {
                let message = format!("`{node}` has no property `{}`", name.value);
                self.error(MachinefileError::new(&name.span, message, "unknown").help(help));
                found = true;
            }
        }
        found
    }

    /// Returns the only argument, as text. `meant`: as for [`Self::at_most_or`].
    pub(in crate::machinefile) fn one_string_or(
        &mut self,
        what: &str,
        meant: impl FnOnce(&[String]) -> Option<String>,
    ) -> Option<Spanned<String>> {
        self.at_most_or(1, meant);
        self.first_string(what)
    }

    /// Reports everything in braces, of a node whose properties may have any name.
    pub(in crate::machinefile) fn only_properties(&mut self) {
        for child in self.children() {
            self.misplaced_child(child, &[child.name().value()], &[]);
        }
    }

    /// Reports everything in braces. What is a property of the node is shown as one.
    pub(in crate::machinefile) fn no_children_but_properties(&mut self, properties: &[&str]) {
        for child in self.children() {
            self.misplaced_child(child, properties, &[]);
        }
    }

    /// Reports a node in braces that is not one of `known`. What is a property of the node is shown as one.
    pub(in crate::machinefile) fn misplaced_child(
        &mut self,
        child: &KdlNode,
        properties: &[&str],
        known: &[&str],
    ) {
        let name = child.name().value();
        if !properties.contains(&name) {
            return self.unknown_child(child, known);
        }
        let values: Vec<&KdlValue> = arguments(child).map(KdlEntry::value).collect();
        let value = match values.as_slice() {
            [] => "…".to_string(),
            [one] => as_kdl(one),
            several => {
                let words = several.iter().map(|it| it.as_string().unwrap_or("…"));
                as_kdl(&words.collect::<Vec<_>>().join(" ").into())
            }
        };
        let help = format!("write it without braces: `{} {name}={value}`", self.line());
        let place = self.span(child.name().span());
        let message = format!("`{name}` is a property of `{}`", self.name());
        self.error(MachinefileError::new(&place, message, "in braces").help(help));
    }
}
