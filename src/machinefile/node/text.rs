//! Texts of a node: arguments and properties, with the values of variables, and within bounds.

use kdl::{KdlEntry, KdlValue};

use super::{Node, values::kind};
use crate::machinefile::{
    diagnostics::{MachinefileError, Spanned},
    interpolate::interpolate,
};

/// The longest text, in bytes: no path is longer (limits.h, PATH_MAX), and what is longer cannot be read where it is shown.
const LONGEST: usize = 4096;

/// The longest argument or variable that Linux gives to a program, in bytes (execve(2), MAX_ARG_STRLEN).
const LONGEST_ARGUMENT: usize = 128 << 10;

/// The longest name of a property of the author's choice, in bytes.
const LONGEST_KEY: usize = 255;

impl Node<'_> {
    /// Returns all arguments, as text; at least one.
    pub(in crate::machinefile) fn strings(&mut self, what: &str) -> Vec<Spanned<String>> {
        let entries: Vec<&KdlEntry> = self.arguments().collect();
        if entries.is_empty() {
            self.missing(what);
        }
        entries
            .into_iter()
            .filter_map(|entry| self.string(entry, what))
            .collect()
    }

    /// Returns the arguments from this one on, as the arguments of a program, which may be longer than other text. If it is
    /// the first one, there must be some.
    pub(in crate::machinefile) fn words_from(&mut self, first: usize) -> Vec<Spanned<String>> {
        let entries: Vec<&KdlEntry> = self.arguments().skip(first).collect();
        if first == 0 && entries.is_empty() {
            self.missing("text");
        }
        entries
            .into_iter()
            .filter_map(|entry| self.string_within(entry, "text", LONGEST_ARGUMENT))
            .collect()
    }

    /// Returns the only argument, as a command for a shell, which gets it as an argument.
    pub(in crate::machinefile) fn one_command(&mut self, what: &str) -> Option<Spanned<String>> {
        self.at_most(1);
        match self.arguments().next() {
            None => {
                self.missing(what);
                None
            }
            Some(entry) => self.string_within(entry, what, LONGEST_ARGUMENT),
        }
    }

    /// Returns a property that is a script, which may be as long as its file.
    pub(in crate::machinefile) fn property_script(
        &mut self,
        name: &str,
    ) -> Option<Spanned<String>> {
        let entry = self.property(name)?;
        self.string_within(entry, "text", usize::MAX)
    }

    pub(super) fn string(&mut self, entry: &KdlEntry, what: &str) -> Option<Spanned<String>> {
        self.string_within(entry, what, LONGEST)
    }

    /// Returns text, with the values of variables, of at most so many bytes.
    fn string_within(
        &mut self,
        entry: &KdlEntry,
        what: &str,
        most: usize,
    ) -> Option<Spanned<String>> {
        let text = self.any_string(entry, what)?;
        let length = text.value.len();
        if length <= most {
            return Some(text);
        }
        let of = match entry.name() {
            Some(property) => format!("`{}` of `{}`", property.value(), self.name()),
            None => format!("`{}`", self.name()),
        };
        self.errors.push(MachinefileError::new(
            &text.span,
            format!("a text of {of} has {length} bytes"),
            format!("at most {most}"),
        ));
        None
    }

    fn any_string(&mut self, entry: &KdlEntry, what: &str) -> Option<Spanned<String>> {
        let place = self.entry_span(entry);
        match entry.value() {
            KdlValue::String(text) => match interpolate(text, &|name| {
                self.env.take(name, self.name(), &|| place.text())
            }) {
                Ok(text) => Some(Spanned::new(text, place)),
                Err((message, help)) => {
                    self.errors
                        .push(MachinefileError::new(&place, message, "in this text").help(help));
                    None
                }
            },
            other => {
                let error = MachinefileError::new(
                    &place,
                    format!("`{}` takes {what}, not {}", self.name(), kind(other)),
                    "expected text",
                );
                let error = match other {
                    KdlValue::Integer(number) => error.help(format!("write \"{number}\"")),
                    _ => error,
                };
                self.errors.push(error);
                None
            }
        }
    }

    pub(in crate::machinefile) fn property_string(
        &mut self,
        name: &str,
    ) -> Option<Spanned<String>> {
        let entry = self.property(name)?;
        self.string(entry, "text")
    }

    /// Returns all properties, as names and text, of nodes that take any names.
    pub(in crate::machinefile) fn free_properties(
        &mut self,
    ) -> Vec<(Spanned<String>, Spanned<String>)> {
        (self.named_entries().into_iter())
            .filter_map(|(key, entry)| {
                let key = self.key(key)?;
                Some((key, self.string_within(entry, "text", LONGEST_ARGUMENT)?))
            })
            .collect()
    }

    /// Returns all properties, as names and values of any type. Variables in text are replaced.
    pub(in crate::machinefile) fn free_values(
        &mut self,
    ) -> Vec<(Spanned<String>, Spanned<KdlValue>)> {
        (self.named_entries().into_iter())
            .filter_map(|(key, entry)| {
                let key = self.key(key)?;
                let value = match entry.value() {
                    KdlValue::String(_) => {
                        let text = self.string_within(entry, "text", LONGEST_ARGUMENT)?;
                        Spanned::new(KdlValue::String(text.value), text.span)
                    }
                    other => Spanned::new(other.clone(), self.entry_span(entry)),
                };
                Some((key, value))
            })
            .collect()
    }

    /// Reports a name of the author's choice that is too long.
    fn key(&mut self, key: Spanned<String>) -> Option<Spanned<String>> {
        let length = key.value.len();
        if length <= LONGEST_KEY {
            return Some(key);
        }
        let message = format!("a name in `{}` has {length} bytes", self.name());
        let label = format!("at most {LONGEST_KEY}");
        self.error(MachinefileError::new(&key.span, message, label));
        None
    }
}
