//! Environment variables that a Machinefile uses, and where.

use std::{cell::RefCell, collections::BTreeMap};

use super::secret::Secret;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable whose value is used in a Machinefile.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub name: String,
    /// The node that uses it: `env`, `catalogue`.
    pub node: String,
    /// Its first position, such as `Machinefile:12:5`.
    pub at: String,
    /// Its value, often a secret.
    pub value: Option<Secret>,
}

/// The environment, which remembers the variables that were used.
pub(super) struct Variables<'a> {
    environment: Environment<'a>,
    taken: RefCell<BTreeMap<(String, String), Variable>>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(environment: Environment<'a>) -> Self {
        Variables {
            environment,
            taken: RefCell::default(),
        }
    }

    /// Returns the value of a variable, for a node at a position.
    pub(super) fn take(&self, name: &str, node: &str, at: &dyn Fn() -> String) -> Option<String> {
        let value = (self.environment)(name);
        self.taken
            .borrow_mut()
            .entry((name.to_string(), node.to_string()))
            .or_insert_with(|| Variable {
                name: name.to_string(),
                node: node.to_string(),
                at: at(),
                value: value.clone().map(Secret),
            });
        value
    }

    /// Returns the variables that were used, by name.
    pub(super) fn taken(self) -> Vec<Variable> {
        self.taken.into_inner().into_values().collect()
    }
}
