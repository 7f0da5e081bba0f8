//! Environment variables that a Machinefile uses, and where.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use crate::report::secrets;

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

/// Variables that are not secret, and whose values are in many paths.
const PLAIN: [&str; 6] = ["HOME", "USER", "LOGNAME", "PWD", "SHELL", "LANG"];

impl Variable {
    /// Returns its value if it may be a secret.
    pub(super) fn secret(&self) -> Option<&str> {
        let value = self.value.as_ref()?;
        (!PLAIN.contains(&self.name.as_str())).then_some(value.0.as_str())
    }

    /// Returns what a text shows in place of its value.
    pub(super) fn written(&self) -> String {
        format!("${{env.{}}}", self.name)
    }
}

/// From now on, shows variables as the Machinefile writes them, in place of their values. Names are known to everybody:
/// those of machines and projects are in libvirt, those of provisioners in the events.
pub fn hide(variables: &[Variable]) {
    let is_name = |variable: &&Variable| {
        matches!(
            variable.node.as_str(),
            "project" | "machine" | "provision" | "group"
        )
    };
    let names: Vec<&str> = (variables.iter().filter(is_name))
        .filter_map(Variable::secret)
        .collect();
    for variable in variables {
        if let Some(value) = variable.secret()
            && !names.contains(&value)
        {
            secrets::hide(value, &variable.written());
        }
    }
}

/// The environment, which remembers the variables that were used.
pub(super) struct Variables<'a> {
    environment: Environment<'a>,
    taken: RefCell<BTreeMap<(String, String), Variable>>,
    /// How many bytes of values were put into texts.
    size: Cell<usize>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(environment: Environment<'a>) -> Self {
        Variables {
            environment,
            taken: RefCell::default(),
            size: Cell::new(0),
        }
    }

    /// Returns the value of a variable, for a node at a position.
    pub(super) fn take(&self, name: &str, node: &str, at: &dyn Fn() -> String) -> Option<String> {
        let value = (self.environment)(name);
        let size = value.as_ref().map_or(0, String::len);
        self.size.set(self.size.get().saturating_add(size));
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

    /// Returns how many bytes of values were put into texts so far.
    pub(super) fn size(&self) -> usize {
        self.size.get()
    }

    /// Returns the variables that were used, by name.
    pub(super) fn taken(self) -> Vec<Variable> {
        self.taken.into_inner().into_values().collect()
    }
}
