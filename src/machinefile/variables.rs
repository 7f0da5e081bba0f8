//! Which environment variables a Machinefile takes, and where.

use std::{cell::RefCell, collections::BTreeMap};

use super::{Environment, model::Text};

/// A variable whose value stands somewhere in what was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub name: String,
    /// The node that it is put into: `env`, `catalogue`.
    pub node: String,
    /// The first place: `Machinefile:12:5`.
    pub at: String,
    /// A secret, often.
    pub value: Option<Text>,
}

/// The environment, which remembers what was asked of it.
pub struct Variables<'a> {
    environment: Environment<'a>,
    taken: RefCell<BTreeMap<(String, String), Variable>>,
}

impl<'a> Variables<'a> {
    pub fn new(environment: Environment<'a>) -> Self {
        Variables {
            environment,
            taken: RefCell::default(),
        }
    }

    /// The value of a variable, for a node at a place.
    pub fn take(&self, name: &str, node: &str, at: &dyn Fn() -> String) -> Option<String> {
        let value = (self.environment)(name);
        self.taken
            .borrow_mut()
            .entry((name.to_string(), node.to_string()))
            .or_insert_with(|| Variable {
                name: name.to_string(),
                node: node.to_string(),
                at: at(),
                value: value.clone().map(Text),
            });
        value
    }

    /// What was taken, by name.
    pub fn taken(self) -> Vec<Variable> {
        self.taken.into_inner().into_values().collect()
    }
}
